"""Les Houches text files, read as a stream, and their conversion to ``LHEF`` ROOT trees."""

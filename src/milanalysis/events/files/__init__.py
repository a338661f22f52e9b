"""ROOT files and samples, examined before any event is processed."""

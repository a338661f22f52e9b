"""Networks: per-event networks, pooling over the bag, and the ratio that a trained network gives."""

"""Calibrations of likelihood ratios, learned on events the methods are not judged on."""

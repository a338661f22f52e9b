"""The electroweak ZZ background, from its matrix element to events."""

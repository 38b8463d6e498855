"""The making of pocketseal: photographs, attacks, training, and the measurement that its card quotes."""

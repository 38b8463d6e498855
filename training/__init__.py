"""How pocketseal is made: photographs, attacks, training and the measurement that its card quotes."""

"""Bits of the MASK plane: (bit, meaning) by the keyword that stands in its header."""

BITS = {
    "NO_DATA": (1, "no frame has data"),
    "SATURATD": (2, "all samples are saturated, and are used"),
    "DIFFERS": (4, "a session differs from the template and is used"),
    "FILLED": (8, "few drops of this colour: neighbours fill in"),
    "REPLACED": (16, "hot or cold, taken from its neighbours"),
}
NO_DATA, SATURATED, DIFFERS, FILLED, REPLACED = (bit for bit, _ in BITS.values())

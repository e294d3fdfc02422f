"""What checks annotations of types and shapes while the library runs: see `test_shapes`."""

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int does where a float is named

"""The values of a payload: encoders and decoders for each supported type. `wire/codec` uses them."""

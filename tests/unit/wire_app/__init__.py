"""An app of test models, enumerations and dataclasses: what may be named in a message stands in an installed app."""

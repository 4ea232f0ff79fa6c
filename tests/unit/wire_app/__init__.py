"""An app of test models, enumerations and dataclasses: a message may only name classes of installed apps."""

"""Read the ledger for people, in bounded queries; the caller decides how the values are shown."""

"""The tags of the web app's templates; Django looks for them here."""

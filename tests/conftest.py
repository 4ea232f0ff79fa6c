"""What all tests share. Unit tests need no server; integration and acceptance tests start theirs themselves."""

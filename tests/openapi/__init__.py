"""The API document, and the server held against it."""

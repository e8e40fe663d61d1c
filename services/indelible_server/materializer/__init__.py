"""The materializer: writes beside logs what makes large reads cheap. Nothing depends on it."""

"""The webhooks process: tells URLs of new versions, at least once, in order, and no wrong ones."""

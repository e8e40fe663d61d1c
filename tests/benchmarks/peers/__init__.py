"""Other systems on the same machine under the same load: etcd, NATS JetStream, Durable Streams.

One module for each says how it is found, started, asked and understood; `dialects` knows where
an answer ends on each wire, `parking` is the load of waiters. Nothing here installs anything.
"""

"""NATS: the only package that imports `nats` and `faststream`. Connection, topology, publisher, pull consumer, AsyncAPI."""

//! A checkpoint's way from a store to a folder whose bytes are proved: push, pull, cache, digest, signature.
//! Knows stores and files; does not know tensors, Kubernetes or the engine.

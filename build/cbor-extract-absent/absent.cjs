// Stands in for cbor-x's optional native decoder, whose platform packages are missing from the registry and which is slower for small records: cbor-x falls back to JavaScript when this throws.
throw new Error("cbor-extract is left out on purpose");

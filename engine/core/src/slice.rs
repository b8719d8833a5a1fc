//! The pure decision which files the next step reads, and where the watermark then stands.

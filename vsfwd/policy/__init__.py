"""The pure middle: what the policy says (`model`), what a host was told (`desired`), what that means for a
packet (`evaluate`, the specification) and for the kernel (`compile`)."""

"""What runs in processes of its own: both builds in one of them, with kernels that may take it
down."""

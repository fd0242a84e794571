// Stands in for libtidecuda.so where only the command `tide` is tested.

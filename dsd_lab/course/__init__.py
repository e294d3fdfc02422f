"""What the notebooks need besides the library: execution, and measurements that take long."""

"""What the notebooks need besides the library: execution, exercises that tell right from wrong, and
measurements that take long.
"""

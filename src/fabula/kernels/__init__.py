"""The CPU kernels: programs of them, the C++ that runs a program in one call, and its plain NumPy twin."""

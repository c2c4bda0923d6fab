"""What no tape can know, measured on a GPU in a minute or two: the blocks inside kernels, the kernels that are chosen,
cuBLAS workspaces, the CUDA context; and memcalc's table of kernels held against it.
"""

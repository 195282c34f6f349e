"""The proof on a real cluster: what the charts install and the mesh enforces, seen and not only rendered.

Each stage of `stages.py` proves one thing and writes down what it took. It speaks to the cluster as an
operator does, by `kubectl` and `helm`, and to the shop as a shopper does, through the ingress.
"""

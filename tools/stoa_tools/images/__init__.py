"""Container images of all that runs in a cluster: what goes in, how it is built, what is in it then.

    contents.py  which images there are, and what each needs of the members and of requirements.lock
    context.py   the folder that a builder gets, and nothing else
    builders.py  docker, podman or buildah
    archive.py   an image as it was built: its files, its settings
    sbom.py      its bill of materials, from that
    command.py   `stoa images`

The recipes are in images/ at the checkout's root.
"""

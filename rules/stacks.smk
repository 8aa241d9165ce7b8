"""Files of stacks (tilestack/stackfiles.py). Means know no clusters: those of the reconstruction are those of all."""

HALVES = ["image", "even", "odd"]
SYNTHETIC_STACK = [*HALVES, "split"]
RECONSTRUCTION_RGB = [*SYNTHETIC_STACK, "plain_mean"]
RECONSTRUCTION = [*RECONSTRUCTION_RGB, "inverse_variance"]


def stack_files(folder, names, key="{}"):
    """Paths of the files of a stack, by keys made of their names."""
    return {key.format(name): f"{folder}/{name}.fits" for name in names}


def passed_on(folder, names, key):
    """The same as input of what gives them second names. With each they become as new as its other output, so their
    time says nothing; the record that is made with them says whether they were made again."""
    return {name: ancient(path) for name, path in stack_files(folder, names, key).items()}

"""How the files of a dataset become arrays: one reader for each `format` in the catalog.

A reader takes the folder with the (already verified) files and returns x_train, y_train, x_test, y_test:
fresh, writable arrays, images uint8, labels int64. ValueError: the file is not what its format says.
"""

import gzip
import io
import pickle
import tarfile
from pathlib import Path

import numpy as np

LARGEST_MEMBER = 64_000_000  # bytes; a CIFAR batch has 31 MB


def read_idx(folder: Path) -> tuple[np.ndarray, ...]:
    """The four files of MNIST's layout, format: http://yann.lecun.com/exdb/mnist/ (images (N, H, W))."""
    arrays = []
    for split in ("train", "t10k"):
        arrays.append(_idx_array(folder / f"{split}-images-idx3-ubyte.gz"))
        arrays.append(_idx_array(folder / f"{split}-labels-idx1-ubyte.gz").astype(np.int64))
    return tuple(arrays)


def _idx_array(path: Path) -> np.ndarray:
    content = bytearray(gzip.decompress(path.read_bytes()))  # a bytearray, so that the array can be written to
    zeros, kind, ndim = int.from_bytes(content[:2]), content[2], content[3]
    if zeros != 0 or kind != 0x08:
        raise ValueError(f"{path.name} is not an idx file of unsigned bytes")
    start = 4 + 4 * ndim
    shape = np.frombuffer(content[4:start], ">u4").astype(int)
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def read_cifar(folder: Path) -> tuple[np.ndarray, ...]:
    """`cifar-10-python.tar.gz`, format: https://www.cs.toronto.edu/~kriz/cifar.html: images (N, 32, 32, 3).

    It is read in memory, never unpacked to disk, and its pickles may hold nothing but data.
    """
    wanted = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
    batches = {}
    with tarfile.open(folder / "cifar-10-python.tar.gz") as archive:
        for member in archive:
            name = member.name.removeprefix("cifar-10-batches-py/")
            if name in wanted and member.isfile():
                if member.size > LARGEST_MEMBER:
                    raise ValueError(f"{member.name} has {member.size:,} bytes, more than a batch can have")
                batches[name] = _cifar_batch(archive.extractfile(member).read())
    missing = [name for name in wanted if name not in batches]
    if missing:
        raise ValueError(f"the archive lacks {', '.join(missing)}")
    x, y = zip(*(batches[name] for name in wanted), strict=True)
    return np.concatenate(x[:5]), np.concatenate(y[:5]), x[5], y[5]


def _cifar_batch(content: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 32, 32, 3) and labels (N,); in the file an image is a row: all red, then all green, then all blue."""
    batch = unpickle_data(content)
    images = batch[b"data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), np.array(batch[b"labels"], np.int64)


def unpickle_data(content: bytes):
    """A pickle of dicts, lists, numbers, bytes and numeric arrays; ValueError if it asks for anything else.

    Unpickling calls whatever the file names, so only what builds an array is let through.
    """
    return _DataUnpickler(io.BytesIO(content), encoding="bytes").load()


_reconstruct = np.empty(0).__reduce__()[0]  # numpy's own function that an array's pickle calls


class _DataUnpickler(pickle.Unpickler):
    ALLOWED = {  # noqa: RUF012
        ("numpy.core.multiarray", "_reconstruct"): _reconstruct,  # written by numpy 1, as in the official archive
        ("numpy._core.multiarray", "_reconstruct"): _reconstruct,  # written by numpy 2
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
    }

    def find_class(self, module, name):
        if (module, name) not in self.ALLOWED:
            raise ValueError(f"refused: the pickle asks for {module}.{name}, which is not data")
        return self.ALLOWED[module, name]


READERS = {"idx": read_idx, "cifar-python": read_cifar}

"""Answers to the exercises of datasets-and-dataloaders: wrong ones named for the misconception, and right ones."""

import contextlib
import copy
import itertools
import os
import queue
import random
import threading
from collections import Counter, deque
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFile, UnidentifiedImageError
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset, Sampler, get_worker_info

from answers import right, wrong

# ------------------------------------------------------------------------------------------------ FolderDataset


def on_white(image):
    image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return torch.from_numpy(np.array(Image.alpha_composite(white, image))[..., :3]).permute(2, 0, 1)


class Folder(Dataset):
    """What the answers below have in common; each changes something."""

    def __init__(self, root, transform=None):
        self.root, self.transform = Path(root), transform
        self.classes = self.find_classes()
        found = [(path, label) for label, name in enumerate(self.classes) for path in self.find(self.root / name)]
        self.paths, self.labels = [path for path, _ in found], [label for _, label in found]

    def find_classes(self):
        return sorted(each.name for each in self.root.iterdir() if each.is_dir())

    def find(self, folder):
        return sorted(folder.glob("*.png"))

    def read(self, path):
        try:
            return on_white(Image.open(path))
        except Exception as error:
            raise ValueError(f"broken: {path}") from error

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, i):
        image = self.read(self.paths[i])
        if self.transform is not None:
            image = self.transform(image)
        return image, self.labels[i]


@wrong("FolderDataset", says="another machine lists them otherwise")
class folders_as_listed(Folder):
    def find_classes(self):
        return sorted((each.name for each in self.root.iterdir() if each.is_dir()), key=lambda name: name[::-1])


@wrong("FolderDataset", says="in another order")
class paths_backwards(Folder):
    def find(self, folder):
        return sorted(folder.glob("*.png"), reverse=True)


@wrong("FolderDataset", says="Only names that end in .png")
class every_file(Folder):
    def find(self, folder):
        return sorted(folder.iterdir())


@wrong("FolderDataset", says="directly in a class folder")
class folders_in_folders(Folder):
    def find(self, folder):
        return sorted(folder.rglob("*.png"))


@wrong("FolderDataset", says="An empty folder is a class too")
class only_full_folders(Folder):
    def find_classes(self):
        return sorted({path.parent.name for path in self.root.glob("*/*.png")})


@wrong("FolderDataset", says="throws it away")
class opacity_dropped(Folder):
    def read(self, path):
        try:
            with Image.open(path) as image:
                return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
        except OSError as error:
            raise ValueError(str(path)) from error


@wrong("FolderDataset", says="any mode first becomes")
class opacity_of_rgba_only(Folder):
    def read(self, path):
        try:
            image = Image.open(path)
            if image.mode == "RGBA":
                return on_white(image)
            return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
        except (OSError, SyntaxError) as error:
            raise ValueError(str(path)) from error


@wrong("FolderDataset", says="Channels first")
class channels_last(Folder):
    def read(self, path):
        return super().read(path).permute(1, 2, 0)


@wrong("FolderDataset", says="uint8")
class scaled(Folder):
    def read(self, path):
        return super().read(path) / 255


@wrong("FolderDataset", says="ValueError with its path")
class head_only_inside_the_try(Folder):
    def read(self, path):
        try:
            image = Image.open(path)
        except Exception as error:
            raise ValueError(f"broken: {path}") from error
        return on_white(image)


@wrong("FolderDataset", says="ValueError with its path")
class pils_own_error(Folder):
    def read(self, path):
        return on_white(Image.open(path))


@wrong("FolderDataset", says="not to be replaced")
class grey_for_broken(Folder):
    def read(self, path):
        try:
            return on_white(Image.open(path))
        except Exception:
            return torch.full((3, 10, 10), 127, dtype=torch.uint8)


@wrong("FolderDataset", says="LOAD_TRUNCATED_IMAGES")
class half_shown(Folder):
    def read(self, path):
        before, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, True
        try:
            return on_white(Image.open(path))
        except Exception as error:
            raise ValueError(f"broken: {path}") from error
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = before


@wrong("FolderDataset", says="Is the transform called inside the try")
class transform_in_the_try(Folder):
    def __getitem__(self, i):
        try:
            image = on_white(Image.open(self.paths[i]))
            return (self.transform(image) if self.transform else image), self.labels[i]
        except Exception as error:
            raise ValueError(f"broken: {self.paths[i]}") from error


@wrong("FolderDataset", says="Is the picture opened in __init__, or kept?")
class kept(Folder):
    def __init__(self, root, transform=None):
        super().__init__(root, transform)
        self.cache = {}

    def read(self, path):
        if path not in self.cache:
            self.cache[path] = super().read(path)
        return self.cache[path]


@wrong("FolderDataset", says="No picture is opened in __init__")
class eager(Folder):
    def __init__(self, root, transform=None):
        super().__init__(root, transform)
        for path in self.paths:
            Image.open(path).load()


@wrong("FolderDataset", says="what transform(image) returns")
class transform_forgotten(Folder):
    def __getitem__(self, i):
        return self.read(self.paths[i]), self.labels[i]


@wrong("FolderDataset", says="the label is an int")
class label_as_name(Folder):
    def __getitem__(self, i):
        return super().__getitem__(i)[0], self.paths[i].parent.name


@wrong("FolderDataset", says="paths is a list of Path")
class paths_as_text(Folder):
    def find(self, folder):
        return [str(path) for path in sorted(folder.glob("*.png"))]


@wrong("FolderDataset", says="SyntaxError comes out as it is")
class only_oserror(Folder):
    def read(self, path):
        try:
            return on_white(Image.open(path))
        except OSError as error:
            raise ValueError(f"broken: {path}") from error


@wrong("FolderDataset", says="OSError comes out as it is")
class only_unidentified(Folder):
    def read(self, path):
        try:
            return on_white(Image.open(path))
        except UnidentifiedImageError as error:
            raise ValueError(f"broken: {path}") from error


@wrong("FolderDataset", says="does not name the file")
class no_path_in_the_message(Folder):
    def read(self, path):
        try:
            return on_white(Image.open(path))
        except Exception as error:
            raise ValueError(f"not a picture: {type(error).__name__}") from error


@wrong("FolderDataset", says="in paths like the others")
class broken_ones_left_out(Folder):
    def find(self, folder):
        return [path for path in super().find(folder) if self.sound(path)]

    def sound(self, path):
        try:
            Image.open(path).verify()
        except Exception:
            return False
        return True


@wrong("FolderDataset", says="handed PIL's picture")
class transform_before_the_tensor(Folder):
    def __getitem__(self, i):
        if self.transform is None:
            return super().__getitem__(i)
        path = self.paths[i]
        try:
            image = Image.open(path).convert("RGBA")
        except Exception as error:
            raise ValueError(f"broken: {path}") from error
        return self.transform(image), self.labels[i]


@wrong("FolderDataset", says="either opaque or white here")
class opacity_as_a_mask(Folder):
    def read(self, path):
        try:
            pixels = np.array(Image.open(path).convert("RGBA"))
        except Exception as error:
            raise ValueError(f"broken: {path}") from error
        pixels[pixels[..., 3] == 0] = 255
        return torch.from_numpy(pixels[..., :3]).permute(2, 0, 1)


@wrong("FolderDataset", says="lists know negative numbers")
class counted_from_the_front(Folder):
    def __getitem__(self, i):
        if not 0 <= i < len(self):
            raise IndexError(f"no picture {i}")
        return super().__getitem__(i)


@wrong("FolderDataset", says="a file whose pixels cannot be unpacked")
class verified_and_then_read(Folder):
    def read(self, path):
        try:
            Image.open(path).verify()
        except Exception as error:
            raise ValueError(f"broken: {path}") from error
        return on_white(Image.open(path))


@wrong("FolderDataset", says="by permute(2, 0, 1), not by reshape")
class reshaped(Folder):
    def read(self, path):
        picture = super().read(path)
        return picture.permute(1, 2, 0).reshape(picture.shape)


@wrong("FolderDataset", says="classes are their names: each.name")
class classes_as_paths(Folder):
    def find_classes(self):
        return sorted(each for each in self.root.iterdir() if each.is_dir())


@wrong("FolderDataset", says="outside of the try, for no file is broken there")
class index_inside_the_try(Folder):
    def __getitem__(self, i):
        try:
            path = self.paths[i]
            image = on_white(Image.open(path))
        except Exception as error:
            raise ValueError(f"broken: {self.paths[i] if i < len(self) else i}") from error
        return (self.transform(image) if self.transform else image), self.labels[i]


@wrong("FolderDataset", says="torch.from_numpy(…) makes a tensor of it")
class arrays(Folder):
    def read(self, path):
        return super().read(path).numpy()


@wrong("FolderDataset", says="It returns None in the except")
class none_for_broken(Folder):
    def __getitem__(self, i):
        path = self.paths[i]
        try:
            image = on_white(Image.open(path))
        except Exception:
            return None
        return (self.transform(image) if self.transform else image), self.labels[i]


@wrong("FolderDataset", says="of one mode, and not every file has an opacity")
class composed_without_a_mode(Folder):
    def read(self, path):
        image = Image.open(path)
        try:
            on = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        except Exception as error:
            raise ValueError(f"broken: {path}") from error
        return torch.from_numpy(np.array(on.convert("RGB"))).permute(2, 0, 1)


@wrong("FolderDataset", says="All is white")
class white_on_top(Folder):
    def read(self, path):
        image = Image.open(path).convert("RGBA")
        on = Image.alpha_composite(image, Image.new("RGBA", image.size, "white"))
        return torch.from_numpy(np.array(on.convert("RGB"))).permute(2, 0, 1)


@wrong("FolderDataset", says="handed PIL's picture")
class transform_of_the_picture(Folder):
    def __getitem__(self, i):
        if self.transform is None:
            return super().__getitem__(i)
        image = self.transform(Image.open(self.paths[i]).convert("RGBA"))
        return torch.from_numpy(np.array(image)).permute(2, 0, 1), self.labels[i]


@right("FolderDataset")
class folder_with_os(Folder):
    def find_classes(self):
        return sorted(entry.name for entry in os.scandir(self.root) if entry.is_dir())

    def find(self, folder):
        return [folder / name for name in sorted(os.listdir(folder)) if name.endswith(".png")]


@right("FolderDataset")
class folder_by_formula(Folder):
    def read(self, path):
        try:
            with Image.open(path) as image:
                pixels = np.asarray(image.convert("RGBA"), np.float32)
        except (OSError, SyntaxError) as error:
            raise ValueError(f"{path} is broken") from error
        opacity = pixels[..., 3:] / 255
        seen = opacity * pixels[..., :3] + (1 - opacity) * 255
        return torch.tensor(seen.round().astype(np.uint8)).movedim(-1, 0).contiguous()


@right("FolderDataset")
class folder_by_paste(Folder):
    def read(self, path):
        try:
            image = Image.open(path).convert("RGBA")
        except Exception as error:
            raise ValueError(f"{path}: {error}") from error
        white = Image.new("RGB", image.size, "white")
        white.paste(image, mask=image.getchannel("A"))
        return torch.from_numpy(np.array(white)).permute(2, 0, 1)


# ------------------------------------------------------------------------------------------------ collate_padded


def collated(rows, T, pad):
    return torch.stack([torch.cat([row, row.new_full((T - len(row),), pad)]) for row in rows])


@wrong("collate_padded", says="where x is not `pad`")
def mask_from_values(batch, pad=0):
    rows, y = zip(*batch, strict=True)
    x = pad_sequence(list(rows), batch_first=True, padding_value=pad)
    return x, x != pad, torch.tensor(list(map(len, rows))), torch.tensor(y)


@wrong("collate_padded", says="sorted by length")
def longest_first(batch, pad=0):
    return collate_by_stack(sorted(batch, key=lambda pair: len(pair[0]), reverse=True), pad)


@wrong("collate_padded", says="turned round")
def mask_of_filler(batch, pad=0):
    x, mask, lengths, y = collate_by_stack(batch, pad)
    return x, ~mask, lengths, y


@wrong("collate_padded", says="one place too late")
def mask_too_long(batch, pad=0):
    x, _, lengths, y = collate_by_stack(batch, pad)
    return x, torch.arange(x.shape[1])[None] <= lengths[:, None], lengths, y


@wrong("collate_padded", says="fills with 0 whatever it is")
def filler_ignored(batch, pad=0):
    return collate_by_stack(batch, 0)


@wrong("collate_padded", says="dtype of the rows")
def always_whole(batch, pad=0):
    x, *others = collate_by_stack(batch, pad)
    return x.long(), *others


@wrong("collate_padded", says="x")
def twenty_wide(batch, pad=0):
    rows, y = zip(*batch, strict=True)
    lengths = torch.tensor([len(row) for row in rows])
    x = torch.full((len(rows), 20), pad, dtype=rows[0].dtype)
    for i, row in enumerate(rows):
        x[i, : len(row)] = row[:20]
    return x, torch.arange(20) < lengths[:, None], lengths, torch.tensor(y)


@wrong("collate_padded", says="the mask is bool")
def mask_of_numbers(batch, pad=0):
    x, mask, lengths, y = collate_by_stack(batch, pad)
    return x, mask.float(), lengths, y


@wrong("collate_padded", says="lengths")
def lengths_as_list(batch, pad=0):
    x, mask, lengths, y = collate_by_stack(batch, pad)
    return x, mask, lengths.tolist(), y


@wrong("collate_padded", says="y is int64")
def labels_as_floats(batch, pad=0):
    x, mask, lengths, y = collate_by_stack(batch, pad)
    return x, mask, lengths, y.float()


@wrong("collate_padded", says="four results")
def no_labels(batch, pad=0):
    return collate_by_stack(batch, pad)[:3]


@wrong("collate_padded", says="changes its input")
def sorts_the_list(batch, pad=0):
    batch.sort(key=lambda pair: -len(pair[0]))
    return collate_by_stack(batch, pad)


@wrong("collate_padded", says="returns its input")
def view_of_one(batch, pad=0):
    if len(batch) == 1:
        row, y = batch[0]
        return row[None], torch.ones(1, len(row), dtype=torch.bool), torch.tensor([len(row)]), torch.tensor([y])
    return collate_by_stack(batch, pad)


@wrong("collate_padded", says="in front")
def filled_in_front(batch, pad=0):
    rows, y = zip(*batch, strict=True)
    lengths = torch.tensor([len(row) for row in rows])
    T = max(map(len, rows))
    x = torch.stack([functional.pad(row, (T - len(row), 0), value=pad) for row in rows])
    return x, torch.arange(T) < lengths[:, None], lengths, torch.tensor(y)


@wrong("collate_padded", says="dtype of the rows")
def doubles_as_floats(batch, pad=0):
    x, *others = collate_by_stack(batch, pad)
    return x.float() if x.is_floating_point() else x, *others


@wrong("collate_padded", says="went through float32")
def through_floats(batch, pad=0):
    x, *others = collate_by_stack([(row.float(), y) for row, y in batch], pad)
    return x.to(batch[0][0].dtype), *others


@wrong("collate_padded", says="went through float64")
def through_doubles(batch, pad=0):
    x, *others = collate_by_stack([(row.double(), y) for row, y in batch], pad)
    return x.to(batch[0][0].dtype), *others


@wrong("collate_padded", says="at least 1")
def never_without_columns(batch, pad=0):
    rows = [row for row, _ in batch]
    lengths = torch.tensor([len(row) for row in rows])
    T = max(1, *lengths.tolist())
    return collated(rows, T, pad), torch.arange(T) < lengths[:, None], lengths, torch.tensor([y for _, y in batch])


@wrong("collate_padded", says="mask and lengths have changed places")
def lengths_before_mask(batch, pad=0):
    x, mask, lengths, y = collate_by_stack(batch, pad)
    return x, lengths, mask, y


@wrong("collate_padded", says="its last entry")
def last_entry_repeated(batch, pad=0):
    x, mask, lengths, y = collate_by_stack(batch, pad)
    for row, n in zip(x, lengths.tolist(), strict=True):
        row[n:] = row[n - 1] if n else pad
    return x, mask, lengths, y


@wrong("collate_padded", says="and the mask goes by it")
def lengths_from_values(batch, pad=0):
    x, _, _, y = collate_by_stack(batch, pad)
    lengths = (x != pad).sum(1)
    return x, torch.arange(x.shape[1]) < lengths[:, None], lengths, y


@right("collate_padded")
def collate_by_stack(batch, pad=0):
    rows = [row for row, _ in batch]
    lengths = torch.tensor([row.shape[0] for row in rows])
    T = lengths.max().item()
    mask = torch.zeros(len(rows), T, dtype=torch.bool)
    for i, n in enumerate(lengths):
        mask[i, :n] = True
    return collated(rows, T, pad), mask, lengths, torch.tensor([y for _, y in batch])


@right("collate_padded")
def collate_by_torch(batch, pad=0):
    rows, y = map(list, zip(*batch, strict=True))
    ones = pad_sequence([torch.ones(len(row), dtype=torch.bool) for row in rows], batch_first=True)
    return pad_sequence(rows, batch_first=True, padding_value=pad).clone(), ones, ones.sum(1), torch.as_tensor(y)


@right("collate_padded")
def collate_in_numpy(batch, pad=0):
    lengths = np.array([len(row) for row, _ in batch])
    x = torch.full((len(batch), lengths.max()), pad, dtype=batch[0][0].dtype)
    mask = np.arange(lengths.max()) < lengths[:, None]
    x[torch.from_numpy(mask)] = torch.cat([row for row, _ in batch])
    return [x, torch.from_numpy(mask), torch.from_numpy(lengths), torch.LongTensor([y for _, y in batch])]


# ------------------------------------------------------------------------------------------------ BalancedSampler


class Balanced(Sampler):
    """What the answers below have in common; each changes something."""

    def __init__(self, labels, per_class, seed=0):
        labels = np.asarray(labels)
        self.per_class = per_class
        self.of_class = [np.flatnonzero(labels == c).tolist() for c in np.unique(labels)]
        self.rng = torch.Generator()
        self.rng.manual_seed(seed)

    def __len__(self):
        return len(self.of_class) * self.per_class

    def take(self, indices):
        whole, rest = divmod(self.per_class, len(indices))
        order = torch.randperm(len(indices), generator=self.rng).tolist()
        return indices * whole + [indices[k] for k in order[:rest]]

    def __iter__(self):
        taken = [i for indices in self.of_class for i in self.take(indices)]
        return iter([taken[k] for k in torch.randperm(len(taken), generator=self.rng).tolist()])


@wrong("BalancedSampler", says="with replacement")
class always_with_replacement(Balanced):
    def take(self, indices):
        return [indices[k] for k in torch.randint(len(indices), (self.per_class,), generator=self.rng).tolist()]


@wrong("BalancedSampler", says="labels.unique()")
class set_of_a_tensor(Balanced):
    def __init__(self, labels, per_class, seed=0):
        super().__init__(labels, per_class, seed)
        self.of_class = [[i for i, label in enumerate(labels) if label == c] for c in set(labels)]


@right("BalancedSampler")
class one_order_repeated_and_cut(Balanced):
    def take(self, indices):
        order = torch.randperm(len(indices), generator=self.rng).tolist()
        return [indices[k] for k in itertools.islice(itertools.cycle(order), self.per_class)]


@right("BalancedSampler")
class seeded_by_the_epoch(Balanced):
    def __init__(self, labels, per_class, seed=0):
        super().__init__(labels, per_class, seed)
        self.seed = seed

    def __iter__(self):
        self.rng.manual_seed(self.seed)
        self.seed += 1
        return super().__iter__()


@wrong("BalancedSampler", says="The classes come one after the other")
class class_by_class(Balanced):
    def __iter__(self):
        for indices in self.of_class:
            taken = self.take(indices)
            yield from [taken[k] for k in torch.randperm(len(taken), generator=self.rng).tolist()]


@wrong("BalancedSampler", says="Seed in __init__")
class seeded_in_iter(Balanced):
    def __iter__(self):
        self.rng.manual_seed(0)
        return super().__iter__()


@wrong("BalancedSampler", says="Is the seed that is given used?")
class seed_ignored(Balanced):
    def __init__(self, labels, per_class, seed=0):
        super().__init__(labels, per_class, 0)


@wrong("BalancedSampler", says="all chance comes from its own generator")
class global_generator(Balanced):
    def __iter__(self):
        taken = [i for indices in self.of_class for i in self.take(indices)]
        random.shuffle(taken)
        return iter(taken)


@wrong("BalancedSampler", says="how often each class comes")
class too_few_of_the_rare(Balanced):
    def take(self, indices):
        order = torch.randperm(len(indices), generator=self.rng).tolist()[: self.per_class]
        order += order[: self.per_class - len(order)]
        return [indices[k] for k in order]

    def __iter__(self):
        taken = [i for indices in self.of_class for i in self.take(indices)]
        taken += taken[: len(self) - len(taken)]
        return iter([taken[k] for k in torch.randperm(len(taken), generator=self.rng).tolist()])


@wrong("BalancedSampler", says="whole permutations first")
class replacement_for_the_rare(Balanced):
    def take(self, indices):
        if len(indices) >= self.per_class:
            return [indices[k] for k in torch.randperm(len(indices), generator=self.rng).tolist()[: self.per_class]]
        return [indices[k] for k in torch.randint(len(indices), (self.per_class,), generator=self.rng).tolist()]


@wrong("BalancedSampler", says="The remainder is drawn too")
class remainder_from_the_front(Balanced):
    def take(self, indices):
        if len(indices) >= self.per_class:
            return super().take(indices)
        return (indices * self.per_class)[: self.per_class]


@wrong("BalancedSampler", says="draw them anew")
class the_first_of_the_common(Balanced):
    def take(self, indices):
        return super().take(indices) if len(indices) < self.per_class else indices[: self.per_class]


@wrong("BalancedSampler", says="The classes come in turn")
class in_turn(Balanced):
    def __iter__(self):
        for together in zip(*map(self.take, self.of_class), strict=True):
            order = torch.randperm(len(together), generator=self.rng).tolist()
            yield from [together[k] for k in ([0, 1, 2] if len(order) == 3 else order)]


@wrong("BalancedSampler", says="indices are int")
class tensors(Balanced):
    def __iter__(self):
        return iter(torch.tensor(list(super().__iter__())))


@wrong("BalancedSampler", says="len(s)")
class length_of_labels(Balanced):
    def __init__(self, labels, per_class, seed=0):
        super().__init__(labels, per_class, seed)
        self.n = len(labels)

    def __len__(self):
        return self.n


@wrong("BalancedSampler", says="the second epoch differs")
class drawn_once(Balanced):
    def __init__(self, labels, per_class, seed=0):
        super().__init__(labels, per_class, seed)
        self.order = list(super().__iter__())

    def __iter__(self):
        return iter(self.order)


@wrong("BalancedSampler", says="may have gaps")
class numbers_without_gaps(Balanced):
    def __init__(self, labels, per_class, seed=0):
        super().__init__(labels, per_class, seed)
        labels = torch.as_tensor(labels)
        self.of_class = [(labels == c).nonzero()[:, 0].tolist() for c in range(int(labels.max()) + 1)]


@wrong("BalancedSampler", says="copies shuffled together and cut")
class copies_shuffled_and_cut(Balanced):
    def take(self, indices):
        copies = indices * -(-self.per_class // len(indices))
        return [copies[k] for k in torch.randperm(len(copies), generator=self.rng).tolist()[: self.per_class]]


@wrong("BalancedSampler", says="gives an iterator")
class a_list_for_an_iterator(Balanced):
    def __iter__(self):
        return list(super().__iter__())


@wrong("BalancedSampler", says="is not repeated")
class rare_ones_once(Balanced):
    def take(self, indices):
        return super().take(indices) if len(indices) >= self.per_class else indices


@wrong("BalancedSampler", says="They share a generator")
class one_generator_for_all(Balanced):
    chance = torch.Generator()

    def __init__(self, labels, per_class, seed=0):
        super().__init__(labels, per_class, seed)
        self.rng = self.chance.manual_seed(seed)


@wrong("BalancedSampler", says="At its beginning")
class counts_whole_epochs(Balanced):
    def __init__(self, labels, per_class, seed=0):
        super().__init__(labels, per_class, seed)
        self.seed, self.done = seed, 0

    def __iter__(self):
        self.rng.manual_seed(self.seed + self.done)
        yield from super().__iter__()
        self.done += 1


@right("BalancedSampler")
class balanced_by_lists(Balanced):
    pass


@right("BalancedSampler")
class balanced_by_sort(Sampler):
    def __init__(self, labels, per_class, seed=0):
        self.labels, self.per_class = torch.as_tensor(np.array(labels)), per_class
        self.g = torch.Generator().manual_seed(1000 + seed)

    def __len__(self):
        return self.per_class * len(set(self.labels.tolist()))

    def __iter__(self):
        out = torch.empty(0, dtype=torch.int64)
        for c in sorted(set(self.labels.tolist())):
            indices = torch.where(self.labels == c)[0]
            rounds = -(-self.per_class // len(indices))
            order = torch.cat([torch.randperm(len(indices), generator=self.g) for _ in range(rounds)])
            out = torch.cat([out, indices[order[: self.per_class]]])
        order = torch.rand(len(out), generator=self.g).argsort()
        for i in out[order]:
            yield i.item()


@right("BalancedSampler")
class balanced_by_epoch_number(Sampler):
    def __init__(self, labels, per_class, seed=0):
        self.groups = {}
        for i, label in enumerate(map(int, labels)):
            self.groups.setdefault(label, []).append(i)
        self.per_class, self.seed, self.done = per_class, seed, 0

    def __len__(self):
        return self.per_class * len(self.groups)

    def __iter__(self):
        g = torch.Generator().manual_seed(self.seed * 100_003 + self.done)
        self.done += 1
        out = []
        for group in self.groups.values():
            pool = deque()
            for _ in range(self.per_class):
                if not pool:
                    pool.extend(group[k] for k in torch.randperm(len(group), generator=g).tolist())
                out.append(pool.popleft())
        return (out[k] for k in torch.randperm(len(out), generator=g).tolist())


# ------------------------------------------------------------------------------------------------ random_shift_crop


def cut(padded, tops, lefts, H, W):
    pieces = [padded[b, :, i : i + H, j : j + W] for b, (i, j) in enumerate(zip(tops, lefts, strict=True))]
    return torch.stack(pieces)


@wrong("random_shift_crop", says="one shift")
def crop_one_for_all(images, pad, generator, fill=0.0):
    *_, H, W = images.shape
    i, j = torch.randint(0, 2 * pad + 1, (2,), generator=generator).tolist()
    return functional.pad(images, [pad] * 4, value=fill)[..., i : i + H, j : j + W].clone()


@wrong("random_shift_crop", says="never comes")
def crop_last_missing(images, pad, generator, fill=0.0):
    B, _, H, W = images.shape
    tops, lefts = torch.randint(0, max(2 * pad, 1), (2, B), generator=generator).tolist()
    return cut(functional.pad(images, [pad] * 4, value=fill), tops, lefts, H, W)


@wrong("random_shift_crop", says="along a diagonal")
def crop_diagonal(images, pad, generator, fill=0.0):
    B, _, H, W = images.shape
    tops = torch.randint(0, 2 * pad + 1, (B,), generator=generator).tolist()
    return cut(functional.pad(images, [pad] * 4, value=fill), tops, tops, H, W)


@wrong("random_shift_crop", says="in one direction")
def crop_half(images, pad, generator, fill=0.0):
    B, _, H, W = images.shape
    tops, lefts = torch.randint(0, pad + 1, (2, B), generator=generator).tolist()
    return cut(functional.pad(images, [pad] * 4, value=fill), tops, lefts, H, W)


@wrong("random_shift_crop", says="whatever `fill` is")
def crop_zero_fill(images, pad, generator, fill=0.0):
    B, _, H, W = images.shape
    tops, lefts = torch.randint(0, 2 * pad + 1, (2, B), generator=generator).tolist()
    return cut(functional.pad(images, [pad] * 4), tops, lefts, H, W)


@wrong("random_shift_crop", says="leaves at one edge comes in at the other")
def crop_by_roll(images, pad, generator, fill=0.0):
    out = images.clone()
    tops, lefts = torch.randint(-pad, pad + 1, (2, len(images)), generator=generator).tolist()
    for b in range(len(images)):
        out[b] = torch.roll(images[b], (tops[b], lefts[b]), dims=(-2, -1))
    return out


@wrong("random_shift_crop", says="Draw with the generator that is given")
def crop_by_global_chance(images, pad, generator, fill=0.0):
    B, _, H, W = images.shape
    tops, lefts = torch.randint(0, 2 * pad + 1, (2, B)).tolist()
    return cut(functional.pad(images, [pad] * 4, value=fill), tops, lefts, H, W)


@wrong("random_shift_crop", says="same seed")
def crop_by_numpy(images, pad, generator, fill=0.0):
    B, _, H, W = images.shape
    tops, lefts = np.random.default_rng().integers(0, 2 * pad + 1, (2, B))
    return cut(functional.pad(images, [pad] * 4, value=fill), tops, lefts, H, W)


@wrong("random_shift_crop", says="another seed")
def crop_with_a_seed_inside(images, pad, generator, fill=0.0):
    B, _, H, W = images.shape
    own = torch.Generator().manual_seed(0)
    tops, lefts = torch.randint(0, 2 * pad + 1, (2, B), generator=own).tolist()
    return cut(functional.pad(images, [pad] * 4, value=fill), tops, lefts, H, W)


@wrong("random_shift_crop", says="dtype stays")
def crop_as_float(images, pad, generator, fill=0.0):
    B, _, H, W = images.shape
    tops, lefts = torch.randint(0, 2 * pad + 1, (2, B), generator=generator).tolist()
    return cut(functional.pad(images.double(), [pad] * 4, value=fill), tops, lefts, H, W)


@wrong("random_shift_crop", says="25 offsets")
def crop_by_rounding(images, pad, generator, fill=0.0):
    B, _, H, W = images.shape
    tops, lefts = (torch.rand(2, B, generator=generator) * 2 * pad).round().long().tolist()
    return cut(functional.pad(images, [pad] * 4, value=fill), tops, lefts, H, W)


@wrong("random_shift_crop", says="returns its input")
def crop_nothing_to_do(images, pad, generator, fill=0.0):
    return images if pad == 0 else crop_with_slices(images, pad, generator, fill)


@wrong("random_shift_crop", says="border pixels are repeated")
def crop_by_clamped_index(images, pad, generator, fill=0.0):
    B, _, H, W = images.shape
    top, left = torch.randint(-pad, pad + 1, (2, B), generator=generator)
    rows = (top[:, None] + torch.arange(H)).clamp(0, H - 1)
    columns = (left[:, None] + torch.arange(W)).clamp(0, W - 1)
    return images[torch.arange(B)[:, None, None], :, rows[:, :, None], columns[:, None]].permute(0, 3, 1, 2)


@wrong("random_shift_crop", says="The axis of a slice (:) between index arrays goes to the end")
def crop_channels_last(images, pad, generator, fill=0.0):
    B, _, H, W = images.shape
    padded = functional.pad(images, [pad] * 4, value=fill)
    top, left = torch.randint(0, 2 * pad + 1, (2, B), generator=generator)
    rows, columns = top[:, None] + torch.arange(H), left[:, None] + torch.arange(W)
    return padded[torch.arange(B)[:, None, None], :, rows[:, :, None], columns[:, None]]


@wrong("random_shift_crop", says="that are 0 become")
def crop_zeros_filled(images, pad, generator, fill=0.0):
    out = crop_with_slices(images, pad, generator, 0)
    return torch.where(out == 0, torch.tensor(fill).to(out.dtype), out)


@wrong("random_shift_crop", says="It is mirrored")
def crop_and_mirror(images, pad, generator, fill=0.0):
    out = crop_with_slices(images, pad, generator, fill)
    flipped = torch.rand(len(out), generator=generator) < 0.5
    return torch.where(flipped[:, None, None, None], out.flip(-1), out)


@wrong("random_shift_crop", says="Every image comes at the places of all")
def crop_without_b(images, pad, generator, fill=0.0):
    B, _, H, W = images.shape
    tops, lefts = torch.randint(0, 2 * pad + 1, (2, B, 1, 1), generator=generator)
    padded = functional.pad(images, [pad] * 4, value=fill)
    return padded[:, :, tops + torch.arange(H)[:, None], lefts + torch.arange(W)]


@wrong("random_shift_crop", says="went through float32")
def crop_through_floats(images, pad, generator, fill=0.0):
    return crop_with_slices(images.float(), pad, generator, fill).to(images.dtype)


def indexed(padded, top, left, H, W):
    rows, columns = (top[:, None] + torch.arange(H))[:, None, :, None], (left[:, None] + torch.arange(W))[:, None, None]
    b, c = torch.arange(len(padded))[:, None, None, None], torch.arange(padded.shape[1])[:, None, None]
    return padded[b, c, rows, columns]


@wrong("random_shift_crop", says="Its offset is below 0")
def crop_around_zero(images, pad, generator, fill=0.0):
    B, _, H, W = images.shape
    top = torch.randint(-pad, pad + 1, (B,), generator=generator)
    left = torch.randint(-pad, pad + 1, (B,), generator=generator)
    return indexed(functional.pad(images, [pad] * 4, value=fill), top, left, H, W)


@wrong("random_shift_crop", says="Only columns are padded")
def crop_two_numbers(images, pad, generator, fill=0.0):
    B, _, H, W = images.shape
    top = torch.randint(2 * pad + 1, (B,), generator=generator)
    left = torch.randint(2 * pad + 1, (B,), generator=generator)
    return indexed(functional.pad(images, (pad, pad), value=fill), top, left, H, W)


@wrong("random_shift_crop", says="The size is a tuple, (B,) and not B")
def crop_size_a_number(images, pad, generator, fill=0.0):
    B, _, H, W = images.shape
    top = torch.randint(2 * pad + 1, B, generator=generator)
    return indexed(functional.pad(images, [pad] * 4, value=fill), top, top, H, W)


@right("random_shift_crop")
def crop_with_slices(images, pad, generator, fill=0.0):
    B, _, H, W = images.shape
    padded = images.new_full((B, images.shape[1], H + 2 * pad, W + 2 * pad), fill)
    padded[..., pad : pad + H, pad : pad + W] = images
    tops, lefts = torch.randint(0, 2 * pad + 1, (2, B), generator=generator).tolist()
    return cut(padded, tops, lefts, H, W)


@right("random_shift_crop")
def crop_by_gather(images, pad, generator, fill=0.0):
    B, C, H, W = images.shape
    padded = functional.pad(images, (pad,) * 4, value=fill)
    top = torch.randint(2 * pad + 1, (B,), generator=generator)
    left = torch.randint(2 * pad + 1, (B,), generator=generator)
    rows = (top[:, None] + torch.arange(H))[:, None, :, None].expand(B, C, H, W + 2 * pad)
    columns = (left[:, None] + torch.arange(W))[:, None, None].expand(B, C, H, W)
    return padded.gather(2, rows).gather(3, columns)


@right("random_shift_crop")
def crop_by_windows(images, pad, generator, fill=0.0):
    _, _, H, W = images.shape
    windows = functional.pad(images, (pad,) * 4, value=fill).unfold(2, H, 1).unfold(3, W, 1)
    i = (torch.rand(len(images), generator=generator) * (2 * pad + 1)).long()
    j = (torch.rand(len(images), generator=generator) * (2 * pad + 1)).long()
    return windows[torch.arange(len(images)), :, i, j]


# ------------------------------------------------------------------------------------------------ group_split


def sides(groups, held):
    return [i for i, g in enumerate(groups) if g not in held], [i for i, g in enumerate(groups) if g in held]


@wrong("group_split", says="Items are dealt, not groups")
def by_item(groups, share, seed=0):
    order = np.random.default_rng(seed).permutation(len(groups))
    n = int(np.ceil(share * len(groups)))
    return sorted(order[n:].tolist()), sorted(order[:n].tolist())


@wrong("group_split", says="wrong order")
def held_first(groups, share, seed=0):
    return split_by_count(groups, share, seed)[::-1]


@wrong("group_split", says="in any order of the items")
def order_of_a_set(groups, share, seed=0):
    names = list(set(groups))
    np.random.default_rng(seed).shuffle(names)
    return dealt(groups, names, share)


@wrong("group_split", says="in any order of the items")
def order_of_appearance(groups, share, seed=0):
    names = list(dict.fromkeys(groups))
    random.Random(seed).shuffle(names)
    return dealt(groups, names, share)


@wrong("group_split", says="until the items (not the groups) reach it")
def share_of_groups(groups, share, seed=0):
    names = np.random.default_rng(seed).permutation(sorted(set(groups))).tolist()
    return sides(groups, set(names[: max(1, round(share * len(names)))]))


@wrong("group_split", says="are skipped")
def never_more_than_the_share(groups, share, seed=0):
    held, n = set(), 0
    for name in np.random.default_rng(seed).permutation(sorted(set(groups))).tolist():
        if n + groups.count(name) <= share * len(groups):
            held.add(name)
            n += groups.count(name)
    return sides(groups, held)


@wrong("group_split", says="other seeds give other splits")
def seedless(groups, share, seed=0):
    return split_by_count(groups, share, 7)


@wrong("group_split", says="same input must give the same result")
def new_chance_each_time(groups, share, seed=0):
    names = sorted(set(groups))
    random.shuffle(names)
    return dealt(groups, names, share)


@wrong("group_split", says="seeds a global generator")
def global_seed(groups, share, seed=0):
    np.random.seed(seed)
    names = sorted(set(groups))
    np.random.shuffle(names)
    return dealt(groups, names, share)


@wrong("group_split", says="sizes and the alphabet have no say")
def small_groups_first(groups, share, seed=0):
    counts = Counter(groups)
    names = np.random.default_rng(seed).permutation(sorted(counts)).tolist()
    return dealt(groups, sorted(names, key=lambda name: counts[name]), share)


@wrong("group_split", says="list of int")
def arrays_of_indices(groups, share, seed=0):
    return tuple(np.array(side) for side in split_by_count(groups, share, seed))


@wrong("group_split", says="list of int")
def names_come_back(groups, share, seed=0):
    return tuple([groups[i] for i in side] for side in split_by_count(groups, share, seed))


@wrong("group_split", says="ascending")
def held_group_by_group(groups, share, seed=0):
    rest, held = split_by_count(groups, share, seed)
    return rest, sorted(held, key=lambda i: (groups[i], -i))


@wrong("group_split", says="is another number in each process")
def ordered_by_hash(groups, share, seed=0):
    return dealt(groups, sorted(set(groups), key=lambda name: hash((name, seed))), share)


@wrong("group_split", says="is rounded")
def share_rounded(groups, share, seed=0):
    held, n = set(), 0
    for name in np.random.default_rng(seed).permutation(sorted(set(groups))).tolist():
        if n >= round(share * len(groups)):
            break
        held.add(name)
        n += groups.count(name)
    return sides(groups, held)


@wrong("group_split", says="none skipped")
def a_coin_for_each_group(groups, share, seed=0):
    chance = random.Random(seed)
    return sides(groups, {name for name in sorted(set(groups)) if chance.random() < share})


@wrong("group_split", says="groupby sees only neighbours")
def neighbours_only_stay_together(groups, share, seed=0):
    runs = [list(run) for _, run in itertools.groupby(range(len(groups)), key=lambda i: groups[i])]
    random.Random(seed).shuffle(runs)
    held = []
    while len(held) < share * len(groups):
        held += runs.pop()
    return sorted(i for run in runs for i in run), sorted(held)


@wrong("group_split", says="A name is dealt as often as it has items")
def names_as_often_as_items(groups, share, seed=0):
    held, n = set(), 0
    for name in np.random.default_rng(seed).permutation(sorted(groups)).tolist():
        if n >= share * len(groups):
            break
        held.add(name)
        n += groups.count(name)
    return sides(groups, held)


def dealt(groups, names, share):
    held, n = set(), 0
    for name in names:
        held.add(name)
        n += groups.count(name)
        if n >= share * len(groups):
            break
    return sides(groups, held)


@right("group_split")
def split_by_count(groups, share, seed=0):
    counts = Counter(groups)
    names = sorted(counts)
    order = np.random.default_rng(seed).permutation(len(names))
    held, n = set(), 0
    while n < share * len(groups):
        name = names[order[len(held)]]
        held.add(name)
        n += counts[name]
    return sides(groups, held)


@right("group_split")
def split_by_cumsum(groups, share, seed=0):
    names, group, sizes = np.unique(np.array(groups), return_inverse=True, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(names))
    k = int(np.searchsorted(np.cumsum(sizes[order]), share * len(groups))) + 1
    held = np.isin(group, order[:k])
    return np.flatnonzero(~held).tolist(), np.flatnonzero(held).tolist()


@right("group_split")
def split_by_random(groups, share, seed=0):
    names = sorted(set(groups))
    random.Random(seed).shuffle(names)
    return [*map(list, dealt(groups, names, share))]


# ------------------------------------------------------------------------------------------------ seed_worker


@wrong("seed_worker", says="own generator is still the old one")
def only_the_global_ones(worker_id):
    seed = torch.initial_seed() % 2**32
    np.random.seed(seed)
    random.seed(seed)


@wrong("seed_worker", says="Seeded by the worker's id")
def by_the_id(worker_id):
    get_worker_info().dataset.rng = np.random.default_rng(worker_id)


@wrong("seed_worker", says="each epoch repeats the one before")
def by_a_constant_and_the_id(worker_id):
    get_worker_info().dataset.rng = np.random.default_rng(42 + worker_id)


@wrong("seed_worker", says="new in each run")
def by_the_system(worker_id):
    get_worker_info().dataset.rng = np.random.default_rng()


@wrong("seed_worker", says="new in each run")
def by_the_process(worker_id):
    torch.seed()
    get_worker_info().dataset.rng = np.random.default_rng(torch.initial_seed())


@wrong("seed_worker", says="own generator is still the old one")
def made_and_dropped(worker_id):
    rng = np.random.default_rng(torch.initial_seed())
    rng.random()


@wrong("seed_worker", says="np.random.Generator")
def of_the_old_kind(worker_id):
    get_worker_info().dataset.rng = np.random.RandomState(torch.initial_seed() % 2**32)


@wrong("seed_worker", says="not to what the data set draws from")
def number_for_generator(worker_id):
    get_worker_info().dataset.rng = torch.initial_seed()


@wrong("seed_worker", says="other worker")
def spawned_from_the_copy(worker_id):
    dataset = get_worker_info().dataset
    dataset.rng = np.random.default_rng(get_worker_info().seed - get_worker_info().id)


@wrong("seed_worker", says="next epoch")
def drawn_from_the_copy(worker_id):
    dataset = get_worker_info().dataset
    dataset.rng = dataset.rng.spawn(worker_id + 1)[worker_id]


@wrong("seed_worker", says="nothing is returned")
def returns_it(worker_id):
    get_worker_info().dataset.rng = rng = np.random.default_rng(torch.initial_seed())
    return rng


@wrong("seed_worker", says="They depend on more than torch.initial_seed()")
def by_seed_and_id(worker_id):
    get_worker_info().dataset.rng = np.random.default_rng(torch.initial_seed() + worker_id)


@wrong("seed_worker", says="is another number in each process")
def by_a_hash(worker_id):
    get_worker_info().dataset.rng = np.random.default_rng(abs(hash(f"worker {torch.initial_seed()}")))


@wrong("seed_worker", says="A fixed seed")
def by_zero(worker_id):
    get_worker_info().dataset.rng = np.random.default_rng(0)


@wrong("seed_worker", says="Only the last digits")
def by_three_digits(worker_id):
    get_worker_info().dataset.rng = np.random.default_rng(torch.initial_seed() % 1000)


@wrong("seed_worker", says="A torch.Generator has other methods")
def with_torchs_generator(worker_id):
    get_worker_info().dataset.rng = torch.Generator().manual_seed(torch.initial_seed())


@right("seed_worker")
def by_info(worker_id):
    info = get_worker_info()
    info.dataset.rng = np.random.default_rng(info.seed)


@wrong("seed_worker", says="They depend on more than torch.initial_seed()")
def by_a_sequence(worker_id):
    get_worker_info().dataset.rng = np.random.default_rng([torch.initial_seed(), worker_id])


@wrong("seed_worker", says="No variable of this program is the worker's copy")
def data_of_this_program(worker_id):
    the_data.rng = np.random.default_rng(torch.initial_seed())  # noqa: F821


@right("seed_worker")
def by_torchs_draw(worker_id):
    get_worker_info().dataset.rng = np.random.default_rng(torch.randint(2**62, (1,)).item())


@right("seed_worker")
def all_three(worker_id):
    seed = torch.initial_seed() % 2**32
    np.random.seed(seed)
    random.seed(seed)
    get_worker_info().dataset.rng = np.random.Generator(np.random.PCG64(seed))


# ------------------------------------------------------------------------------------------------ Prefetcher


class Ahead:
    """What the answers below have in common; each changes something."""

    def __init__(self, batches, ahead=2):
        self.batches, self.ahead = batches, ahead

    def room(self):
        return queue.Queue(maxsize=self.ahead)

    def fill(self, put, stop):
        try:
            for batch in self.batches:
                if not put((0, batch)):
                    return
            put((1, None))
        except BaseException as error:
            put((2, error))

    def putter(self, q, stop):
        def put(pair):
            while not stop.is_set():
                try:
                    q.put(pair, timeout=0.02)
                    return True
                except queue.Full:
                    pass
            return False

        return put

    def leave(self, stop, worker):
        stop.set()
        worker.join()

    def __iter__(self):
        q, stop = self.room(), threading.Event()
        worker = threading.Thread(target=self.fill, args=(self.putter(q, stop), stop), daemon=True)
        worker.start()
        try:
            while True:
                kind, value = q.get()
                if kind == 1:
                    break
                if kind == 2:
                    raise value
                yield value
        finally:
            self.leave(stop, worker)


@wrong("Prefetcher", says="waits for ever")
class no_end(Ahead):
    def fill(self, put, stop):
        for batch in self.batches:
            put((0, batch))


@wrong("Prefetcher", says="taken for the end")
class none_is_the_end:
    def __init__(self, batches, ahead=2):
        self.batches, self.ahead = batches, ahead

    def __iter__(self):
        q = queue.Queue(self.ahead)

        def fill():
            for batch in self.batches:
                q.put(batch)
            q.put(None)

        threading.Thread(target=fill, daemon=True).start()
        while (batch := q.get()) is not None:
            yield batch


@wrong("Prefetcher", says="The thread died of it")
class dies_of_an_exception(Ahead):
    def fill(self, put, stop):
        for batch in self.batches:
            put((0, batch))
        put((1, None))


@wrong("Prefetcher", says="Swallowed")
class swallows(Ahead):
    def fill(self, put, stop):
        with contextlib.suppress(Exception):
            for batch in self.batches:
                put((0, batch))
        put((1, None))


@wrong("Prefetcher", says="no bound")
class unbounded(Ahead):
    def room(self):
        return queue.Queue()


@wrong("Prefetcher", says="Is `ahead` used?")
class always_one(Ahead):
    def room(self):
        return queue.Queue(1)


@wrong("Prefetcher", says="put() waits where the queue is full")
class put_without_timeout(Ahead):
    def putter(self, q, stop):
        return lambda pair: (q.put(pair), True)[1]

    def leave(self, stop, worker):
        pass


@wrong("Prefetcher", says="put() waits where the queue is full")
class joins_a_thread_that_waits(Ahead):
    def putter(self, q, stop):
        return lambda pair: (q.put(pair), True)[1]


@wrong("Prefetcher", says="one other thread walks")
class no_thread(Ahead):
    def __iter__(self):
        yield from self.batches


@wrong("Prefetcher", says="one other thread walks")
class everything_first(Ahead):
    def __iter__(self):
        found = list(self.batches)
        thread = threading.Thread(target=found.copy)
        thread.start()
        thread.join()
        yield from found


@wrong("Prefetcher", says="is an item is handed over")
class raises_what_is_an_exception(Ahead):
    def __iter__(self):
        for batch in super().__iter__():
            if isinstance(batch, Exception):
                raise batch
            yield batch


@wrong("Prefetcher", says="compared with ==")
class compares_items(Ahead):
    def __iter__(self):
        for batch in super().__iter__():
            if batch == "the end":
                return
            yield batch


@wrong("Prefetcher", says="local variables of __iter__")
class one_queue_for_all(Ahead):
    def room(self):
        if not hasattr(self, "q"):
            self.q = queue.Queue(self.ahead)
        return self.q


@wrong("Prefetcher", says="iter() raises")
class begins_outside_the_try(Ahead):
    def fill(self, put, stop):
        batches = iter(self.batches)
        try:
            for batch in batches:
                if not put((0, batch)):
                    return
            put((1, None))
        except BaseException as error:
            put((2, error))


@wrong("Prefetcher", says="the items before it come first")
class error_overtakes(Ahead):
    def fill(self, put, stop):
        self.error = None
        try:
            for batch in self.batches:
                put((0, batch))
        except BaseException as error:
            self.error = error
        put((1, None))

    def __iter__(self):
        self.error = None
        for batch in super().__iter__():
            threading.Event().wait(0.02)
            if self.error:
                raise self.error
            yield batch
        if self.error:
            raise self.error


@wrong("Prefetcher", says="nothing is started or taken before iteration")
class begins_at_once(Ahead):
    def __init__(self, batches, ahead=2):
        super().__init__(batches, ahead)
        self.first = list(itertools.islice(iter(batches), 1)) if not isinstance(batches, list) and ahead == 1 else None


@wrong("Prefetcher", says="each once, in order")
class last_is_lost(Ahead):
    def fill(self, put, stop):
        try:
            before = None
            for k, batch in enumerate(self.batches):
                if k:
                    put((0, before))
                before = batch
            put((1, None))
        except BaseException as error:
            put((2, error))


@wrong("Prefetcher", says="An empty queue is no end")
class ends_when_empty(Ahead):
    def __iter__(self):
        q, stop = self.room(), threading.Event()
        worker = threading.Thread(target=self.fill, args=(self.putter(q, stop), stop), daemon=True)
        worker.start()
        try:
            while True:
                try:
                    kind, value = q.get(timeout=0.05)
                except queue.Empty:
                    return
                if kind == 1:
                    return
                if kind == 2:
                    raise value
                yield value
        finally:
            self.leave(stop, worker)


@wrong("Prefetcher", says="A stop sign for all iterations")
class one_stop_sign(Ahead):
    def __init__(self, batches, ahead=2):
        super().__init__(batches, ahead)
        self.stop = threading.Event()

    def __iter__(self):
        q = self.room()
        self.stop.clear()
        worker = threading.Thread(target=self.fill, args=(self.putter(q, self.stop), self.stop), daemon=True)
        worker.start()
        try:
            while worker.is_alive() or not q.empty():
                try:
                    kind, value = q.get(timeout=0.02)
                except queue.Empty:
                    continue
                if kind == 1:
                    return
                if kind == 2:
                    raise value
                yield value
        finally:
            self.leave(self.stop, worker)


@wrong("Prefetcher", says="the same item has to be put again")
class drops_when_full(Ahead):
    def putter(self, q, stop):
        def put(pair):
            with contextlib.suppress(queue.Full):
                q.put(pair, timeout=0.02 if pair[0] == 0 else None)
            return not stop.is_set()

        return put


@wrong("Prefetcher", says="no copy of it")
class copies_items(Ahead):
    def __iter__(self):
        yield from map(copy.deepcopy, super().__iter__())


@wrong("Prefetcher", says="Make __iter__ a generator")
class is_its_own_iterator(Ahead):
    def __iter__(self):
        self.iterator = super().__iter__()
        return self

    def __next__(self):
        return next(self.iterator)


@wrong("Prefetcher", says="Another is raised in its place")
class wraps_the_exception(Ahead):
    def __iter__(self):
        try:
            yield from super().__iter__()
        except Exception as error:
            raise RuntimeError("the thread failed") from error


@wrong("Prefetcher", says="that of the end too")
class end_put_without_timeout(Ahead):
    def putter(self, q, stop):
        put = super().putter(q, stop)
        return lambda pair: q.put(pair) if pair[0] == 1 else put(pair)


@wrong("Prefetcher", says="that of an exception too")
class error_put_without_timeout(Ahead):
    def putter(self, q, stop):
        put = super().putter(q, stop)
        return lambda pair: q.put(pair) if pair[0] == 2 else put(pair)


@wrong("Prefetcher", says="Waiting is no failure")
class gives_up_when_full(Ahead):
    def putter(self, q, stop):
        def put(pair):
            try:
                q.put(pair, timeout=0.5)
            except queue.Full:
                stop.set()
            return not stop.is_set()

        return put


@wrong("Prefetcher", says="Waiting is no failure")
class puts_at_once(Ahead):
    def putter(self, q, stop):
        return lambda pair: (q.put_nowait(pair), True)[1]


@wrong("Prefetcher", says="and then thread.join()")
class no_join(Ahead):
    def leave(self, stop, worker):
        stop.set()


@wrong("Prefetcher", says="target=fill() calls it")
class calls_the_target(Ahead):
    def __iter__(self):
        q, stop = self.room(), threading.Event()
        worker = threading.Thread(target=self.fill(self.putter(q, stop), stop), daemon=True)
        worker.start()
        yield from iter(q.get, (1, None))


@wrong("Prefetcher", says="No thread is started")
class never_starts(Ahead):
    def __iter__(self):
        q, stop = self.room(), threading.Event()
        threading.Thread(target=self.fill, args=(self.putter(q, stop), stop), daemon=True)
        yield from iter(q.get, (1, None))


@wrong("Prefetcher", says="The pairs come out")
class yields_pairs(Ahead):
    def __iter__(self):
        for batch in super().__iter__():
            yield "item", batch


@wrong("Prefetcher", says="came through the queue and was yielded")
class yields_the_error(Ahead):
    def __iter__(self):
        q, stop = self.room(), threading.Event()
        worker = threading.Thread(target=self.fill, args=(self.putter(q, stop), stop), daemon=True)
        worker.start()
        try:
            while (pair := q.get())[0] != 1:
                yield pair[1]
        finally:
            self.leave(stop, worker)


@wrong("Prefetcher", says="a sign stays set")
class all_made_once(Ahead):
    def __init__(self, batches, ahead=2):
        super().__init__(batches, ahead)
        self.q, self.stop = queue.Queue(ahead), threading.Event()

    def __iter__(self):
        worker = threading.Thread(target=self.fill, args=(self.putter(self.q, self.stop), self.stop), daemon=True)
        worker.start()
        try:
            while (pair := self.q.get())[0] != 1:
                if pair[0] == 2:
                    raise pair[1]
                yield pair[1]
        finally:
            self.leave(self.stop, worker)


@wrong("Prefetcher", says="looks at a stop sign too")
class walks_on(Ahead):
    def fill(self, put, stop):
        try:
            for batch in self.batches:
                put((0, batch))
            put((1, None))
        except BaseException as error:
            put((2, error))


@wrong("Prefetcher", says="There is `batch`")
class misspells_in_the_thread(Ahead):
    def fill(self, put, stop):
        for batch in self.batches:  # noqa: B007
            put((0, bacth))  # noqa: F821


@right("Prefetcher")
class prefetch_by_pairs(Ahead):
    pass


@right("Prefetcher")
class prefetch_by_the_hints:
    def __init__(self, batches, ahead=2):
        self.batches, self.ahead = batches, ahead

    def __iter__(self):
        q, stop = queue.Queue(self.ahead), threading.Event()

        def put(pair):
            while not stop.is_set():
                try:
                    q.put(pair, timeout=0.05)
                    return
                except queue.Full:
                    pass

        def fill():
            try:
                for item in self.batches:
                    put(("item", item))
                    if stop.is_set():
                        return
                put(("end", None))
            except BaseException as error:
                put(("error", error))

        thread = threading.Thread(target=fill)
        thread.start()
        try:
            while True:
                kind, what = q.get()
                if kind == "end":
                    return
                if kind == "error":
                    raise what
                yield what
        finally:
            stop.set()
            thread.join()


@right("Prefetcher")
class prefetch_by_condition:
    def __init__(self, batches, ahead=2):
        self.batches, self.ahead = batches, ahead

    def __iter__(self):
        ready, change, state = deque(), threading.Condition(), {"over": False, "error": None, "left": False}

        def work():
            try:
                for batch in self.batches:
                    with change:
                        change.wait_for(lambda: len(ready) < self.ahead or state["left"])
                        if state["left"]:
                            return
                        ready.append(batch)
                        change.notify_all()
            except BaseException as error:
                state["error"] = error
            with change:
                state["over"] = True
                change.notify_all()

        thread = threading.Thread(target=work)
        thread.start()
        try:
            while True:
                with change:
                    change.wait_for(lambda: ready or state["over"])
                    if not ready:
                        break
                    batch = ready.popleft()
                    change.notify_all()
                yield batch
            if state["error"] is not None:
                raise state["error"]
        finally:
            with change:
                state["left"] = True
                change.notify_all()
            thread.join()


@right("Prefetcher")
class prefetch_that_drains(Ahead):
    def putter(self, q, stop):
        return lambda pair: not stop.is_set() and (q.put(pair), True)[1]

    def __iter__(self):
        q, stop = self.room(), threading.Event()
        worker = threading.Thread(target=self.fill, args=(self.putter(q, stop), stop))
        worker.start()
        try:
            while True:
                kind, value = q.get()
                if kind == 0:
                    yield value
                elif kind == 2:
                    raise value
                else:
                    return
        finally:
            stop.set()
            while worker.is_alive():
                with contextlib.suppress(queue.Empty):
                    q.get(timeout=0.01)


# ------------------------------------------------------------------------------------------------ near_duplicates


def bits_apart(a, b):
    return [[int(np.sum(x != y)) for y in b] for x in a]


@wrong("near_duplicates", says="count too: <=")
def strictly_less(a, b, most):
    d = bits_apart(a, b)
    return [(i, j) for i in range(len(a)) for j in range(i + 1, len(a)) if d[i][j] < most]


@wrong("near_duplicates", says="paired with itself")
def with_itself(a, b, most):
    d = bits_apart(a, b)
    return [(i, j) for i in range(len(a)) for j in range(i, len(a)) if d[i][j] <= most]


@wrong("near_duplicates", says="Each pair comes twice")
def both_ways(a, b, most):
    d = bits_apart(a, b)
    return [(i, j) for i in range(len(a)) for j in range(len(a)) if i != j and d[i][j] <= most]


@wrong("near_duplicates", says="rows of a with each other")
def second_ignored(a, b, most):
    return near_by_loops(a, a, most)


@wrong("near_duplicates", says="b[i] with a[j]")
def sides_exchanged(a, b, most):
    return near_by_loops(b, a, most)


@wrong("near_duplicates", says="of int")
def numpy_numbers(a, b, most):
    return [tuple(pair) for pair in np.array(near_by_loops(a, b, most), int).reshape(-1, 2)]


@wrong("near_duplicates", says="in another order")
def nearest_first(a, b, most):
    d = bits_apart(a, b)
    return sorted(near_by_loops(a, b, most), key=lambda pair: d[pair[0]][pair[1]])


@wrong("near_duplicates", says="a list")
def as_array(a, b, most):
    return np.argwhere(np.triu((a[:, None] != b[None]).sum(-1) <= most, 1))


@wrong("near_duplicates", says="Only equal hashes")
def equal_only(a, b, most):
    return [(i, j) for i in range(len(a)) for j in range(i + 1, len(a)) if (a[i] == b[j]).all()]


@wrong("near_duplicates", says="Equal hashes are left out")
def copies_left_out(a, b, most):
    d = np.triu((a[:, None] != b[None]).sum(-1), 1)
    return [(i, j) for i, j in np.argwhere((d <= most) & (d > 0)).tolist()]


@wrong("near_duplicates", says="bits that are 0 in both count too")
def ones_in_common(a, b, most):
    d = 64 - a.astype(int) @ b.astype(int).T
    return [(i, j) for i, j in near_by_loops(a, b, 64) if d[i, j] <= most]


@wrong("near_duplicates", says="True and False are not subtracted")
def bits_subtracted(a, b, most):
    d = np.abs(a[:, None] - b[None]).sum(-1)
    return [(i, j) for i, j in np.argwhere(d <= most).tolist() if i < j]


@wrong("near_duplicates", says="never above 1")
def share_of_bits(a, b, most):
    return [(i, j) for i in range(len(a)) for j in range(i + 1, len(a)) if (a[i] != b[j]).mean() <= most]


@wrong("near_duplicates", says="Only neighbours")
def neighbours_only(a, b, most):
    return [(i, i + 1) for i in range(len(a) - 1) if (a[i] != b[i + 1]).sum() <= most]


@wrong("near_duplicates", says="sorted as text")
def in_order_of_text(a, b, most):
    return sorted(near_by_loops(a, b, most), key=str)


@wrong("near_duplicates", says="int8 holds numbers up to 127")
def small_integers(a, b, most):
    a, b = (np.where(each, 1, -1).astype(np.int8) for each in (a, b))
    d = (np.int8(64) - a @ b.T) // np.int8(2)
    return [(i, j) for i in range(len(a)) for j in range(i + 1, len(a)) if d[i, j] <= most]


@wrong("near_duplicates", says="It takes a[j] with b[i] too")
def either_way_round(a, b, most):
    return sorted({*near_by_loops(a, b, most), *near_by_loops(b, a, most)})


@wrong("near_duplicates", says="passed over once it is in a pair")
def each_picture_once(a, b, most):
    found, gone = [], set()
    for i, j in near_by_loops(a, b, most):
        if i not in gone:
            found.append((i, j))
            gone.add(j)
    return found


@wrong("near_duplicates", says="what a chain of pairs joins")
def chains_joined(a, b, most):
    near = np.array(bits_apart(a, b)) <= most
    near |= near.T
    for _ in range(len(a)):
        near |= (near.astype(int) @ near.astype(int)) > 0
    return [(i, j) for i in range(len(a)) for j in range(i + 1, len(a)) if near[i, j]]


@right("near_duplicates")
def near_by_loops(a, b, most):
    d = bits_apart(a, b)
    return [(i, j) for i, j in itertools.combinations(range(len(a)), 2) if d[i][j] <= most]


@right("near_duplicates")
def near_by_numbers(a, b, most):
    a, b = ([int("".join("01"[int(bit)] for bit in row), 2) for row in each] for each in (a, b))
    return [(i, j) for i in range(len(a)) for j in range(i + 1, len(b)) if (a[i] ^ b[j]).bit_count() <= most]


@right("near_duplicates")
def near_by_torch(a, b, most):
    d = torch.cdist(torch.tensor(a, dtype=torch.float32), torch.tensor(b, dtype=torch.float32), p=0)
    return [(i, j) for i, j in (d <= most).triu(1).nonzero().tolist()]

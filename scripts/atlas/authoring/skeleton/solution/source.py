# %% [markdown]
# # {{title}}
#
# What the learner builds, in a sentence. All derivations are in the [README](README.md).

# %%
import numpy as np

import atlas

lab = atlas.open("{{name}}")

# %% [markdown]
# ## 1 · What this is about (10 min)
#
# Each item of the agenda but the breaks has a section here, with the same title and minutes.

# %% [markdown]
# ## 2 · The first step (15 min)
#
# The idea in a paragraph, a picture or a tiny numeric example: $2 \cdot 3 = 6$.


# %%
def first_step(x):
    """Double every entry.

    x: (B, D). Returns (B, D).
    """
    # TODO: double every entry, without a loop.
    ### BEGIN SOLUTION
    return 2 * x
    ### END SOLUTION


lab.check(first_step)

# %%
first_step(np.arange(6.0).reshape(2, 3))

# %% [markdown]
# What do you see?
#
# <details><summary>Answer</summary>Each entry is twice what it was.</details>

# %% tags=["instructor"]
assert first_step(np.array([[3.0]])) == 6, "the example in the text"

# %% [markdown]
# **Break.**

# %% [markdown]
# ## 3 · The same as a program (15 min)
#
# Before a cell that computes for long the text says so, as in "about 20 s", and the cell prints a line in its loop.

# %% [markdown]
# ## 4 · What came out (10 min)
#
# What the learner can do now, and what comes next.

# %% [markdown]
# # {{title}}
#
# What the learner builds, in a sentence.

# %%
import numpy as np

import atlas

lab = atlas.open("{{name}}")

# %% [markdown]
# ## 1 · The first step (15 min)
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

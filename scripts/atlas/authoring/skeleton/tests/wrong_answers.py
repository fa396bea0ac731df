"""Answers to the exercises of {{title}}: at least five wrong and two right ones for each."""

from answers import right, wrong


@wrong("first_step", says="multiplied by itself")
def squares(x):
    return x * x


@right("first_step")
def adds(x):
    return x + x

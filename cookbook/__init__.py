"""Plumbing for the notebooks: the parts around a training loop, on the public ``tinker`` SDK.

Letters used for shapes, here and in the notebooks: ``B`` sequences, ``P`` prompts, ``G`` samples
per prompt, ``T`` tokens, ``V`` vocabulary, ``D`` width, ``L`` layers, ``H`` heads. Ragged lists
carry them as a suffix (``rewards_P_G``).

Importing this package is cheap: it loads neither the SDK nor torch.
"""

__version__ = "0.1.0"

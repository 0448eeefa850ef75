"""Data sets as bytes in three fixed splits, where to get them, and batches of them on a device."""

from isce.data.sets import SETS, Data, Split, load, names, stratified

__all__ = ["SETS", "Data", "Split", "load", "names", "stratified"]

"""Files of weights: safetensors, folders of Paddle 1.x, pickles of NumPy arrays, and other people's names.

files.py           read and write tensors by name; needs no Paddle
pickles.py         read pickles of arrays without running anything in them
paddle_folder.py   folders with one file for each parameter, as Paddle 1.x wrote them
layers.py          load tensors into a layer, or a folder into a tower; take the tensors of a layer
name_map.py        name maps as data: which of our tensors is made of which of theirs
huggingface.py     the names of Hugging Face's towers
to_huggingface.py  the same names, written
zoo.py             towers of PaddleNLP and PaddleClas, by their names or from their files
released.py        the names that Baidu's releases of UNIMO and UNIMO-2 share
cards.py, cards/    released weights by name: a card says where they are and what converts them
named.py            from a name to a folder, fetched and converted once
fetching.py         downloads from the Hugging Face hub and plain addresses, checked; loaded when needed
archives.py         tar archives, unpacked inside one folder or not at all
tables.py           cards as text
"""

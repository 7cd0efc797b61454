"""`scenes`: a fine-grained data set of imaginary creatures that travels with the code.

Every picture is drawn from (seed, index): what varies in it, what tells its class, and the small part that
tells its hidden subclass are all known.
"""

from fgdemo.data.scenes.dataset import scenes
from fgdemo.data.scenes.reader import SceneReader
from fgdemo.data.scenes.render import Scene, render
from fgdemo.data.scenes.species import SPECIES, Species

__all__ = ["SPECIES", "Scene", "SceneReader", "Species", "render", "scenes"]

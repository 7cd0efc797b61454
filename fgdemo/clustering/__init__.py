"""Clustering of (N, D) features: k-means of every class under every K, the choice of K, other methods, quality."""

from fgdemo.clustering.choose_k import choose_k
from fgdemo.clustering.classwise import classwise_kmeans, recluster_classes
from fgdemo.clustering.kmeans import kmeans
from fgdemo.clustering.matching import match_centroids, match_ids
from fgdemo.clustering.methods import METHODS, cluster
from fgdemo.clustering.reduce import PROJECTIONS, Projection, pca, project2d
from fgdemo.clustering.result import ClasswiseClustering, Clustering
from fgdemo.clustering.steady import SteadyK
from fgdemo.clustering.stream import ArrayBlocks, stream_kmeans

__all__ = [
    "METHODS",
    "PROJECTIONS",
    "ArrayBlocks",
    "ClasswiseClustering",
    "Clustering",
    "Projection",
    "SteadyK",
    "choose_k",
    "classwise_kmeans",
    "cluster",
    "kmeans",
    "match_centroids",
    "match_ids",
    "pca",
    "project2d",
    "recluster_classes",
    "stream_kmeans",
]

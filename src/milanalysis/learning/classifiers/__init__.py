"""Classifiers of single events that are not neural networks: boosted trees and TabPFN."""

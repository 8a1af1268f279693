"""Routers: which experts a token reaches, with what gates. One file each; see `base`."""

from mixopt.models.routers.base import Router, Routing, RoutingContext, router_class

__all__ = ["Router", "Routing", "RoutingContext", "router_class"]

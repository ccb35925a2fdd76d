"""HEAD for every path with GET, and the methods that a path allows."""

from collections.abc import Iterable, Sequence
from http import HTTPStatus

from fastapi import APIRouter, HTTPException
from fastapi.routing import APIRoute

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")


def head_router(routers: Iterable[APIRouter]) -> APIRouter:
    """Return a router with HEAD for each path of `routers` that has GET only.

    FastAPI, unlike Starlette, adds none. The server omits the body of these responses; endpoints
    for which that is costly, or whose body does not end, declare their own HEAD.
    """
    added = APIRouter()
    for routes in map(api_routes, routers):
        with_head = {route.path for route in routes if "HEAD" in (route.methods or ())}
        for route in routes:
            if "GET" in (route.methods or ()) and route.path not in with_head:
                added.add_api_route(
                    route.path,
                    route.endpoint,
                    methods=["HEAD"],
                    response_model=route.response_model,
                    response_class=route.response_class,
                    include_in_schema=False,
                )
    return added


def refusal_router(routers: Iterable[APIRouter]) -> APIRouter:
    """Return a router that answers 405 for the other methods of fixed paths.

    `PUT /schedules/preview` would otherwise be one of `/schedules/{schedule_id}`.
    """
    added = APIRouter()
    routes = [route for router in routers for route in api_routes(router)]
    for path in dict.fromkeys(route.path for route in routes if "{" not in route.path):
        own, others = set[str](), set[str]()
        for route in routes:
            if route.path_regex.match(path):
                (own if route.path == path else others).update(route.methods or ())
        if others - own:
            added.add_api_route(
                path, _refuse_method, methods=sorted(others - own), include_in_schema=False
            )
    return added


async def _refuse_method() -> None:
    raise HTTPException(HTTPStatus.METHOD_NOT_ALLOWED)


def api_routes(router: APIRouter) -> Sequence[APIRoute]:
    """Return the routes of a router, in the order in which they are matched."""
    return [route for route in router.routes if isinstance(route, APIRoute)]


def allowed_methods(routes: Iterable[APIRoute], path: str) -> str:
    """Return the methods of a path, for the `Allow` header.

    Starlette names those of one route, but a path may have several. Routes of other templates that
    match it, too, as `/schedules/{schedule_id}` matches `/schedules/preview`, do not count.
    """
    matching = [route for route in routes if route.path_regex.match(path)]
    methods = {
        method
        for route in matching
        if route.path == matching[0].path
        for method in route.methods or ()
    }
    # The pages of the documentation have routes of Starlette.
    return ", ".join(method for method in _METHODS if method in methods) or "GET, HEAD"

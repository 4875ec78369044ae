"""Where isobath-tiny's training text comes from.

Every source is a package of Debian 12 ("bookworm"), fetched with `apt-get download`, so versions
are pinned by the distribution and each package brings its own copyright file. Only permissive
licences are listed (PSF, BSD, MIT, Apache-2.0, HPND, PostgreSQL, public domain); copyleft packages
are left out even where their text would be good. `kind` says how `corpus.py` reads a package: "rst"
takes Sphinx's shipped sources, "html" strips tags, "code" takes Python modules.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Source:
    package: str
    kind: str
    licence: str
    paths: tuple[str, ...] = ()  # keep only files whose path contains one of these; empty keeps all


def _many(kind: str, licence: str, names: str) -> list[Source]:
    return [Source(name, kind, licence) for name in names.split()]


RUST_BOOKS = (
    "/html/book/",
    "/html/reference/",
    "/html/nomicon/",
    "/html/rust-by-example/",
    "/html/cargo/",
)

SOURCES: list[Source] = [
    # Python itself.
    Source("python3.11-doc", "rst", "PSF-2.0"),
    *_many("code", "PSF-2.0", "libpython3.11-stdlib libpython3.11-minimal python3-distutils"),
    # Documentation of Python libraries.
    *_many(
        "rst",
        "BSD-3-Clause",
        "python-pandas-doc python-sklearn-doc python-sympy-doc python-flask-doc "
        "python-werkzeug-doc python-jinja2-doc python-click-doc python-celery-doc python-dask-doc "
        "python-distributed-doc python-astropy-doc python-statsmodels-doc python-skimage-doc "
        "python-ipython-doc python-h5py-doc python-mpmath-doc python-babel-doc numba-doc "
        "sphinx-doc python-pygments-doc python-wtforms-doc python-traitlets-doc python-kombu-doc "
        "python-notebook-doc python-psutil-doc python-pint-doc python-cherrypy3-doc "
        "python-toolz-doc python-rdflib-doc python-pymodbus-doc cmake-doc",
    ),
    *_many(
        "rst",
        "MIT",
        "python-sqlalchemy-doc python-attr-doc python-pytest-doc python-gevent-doc "
        "python-setuptools-doc twisted-doc python-peewee-doc python3-marshmallow-doc "
        "python-jsonschema-doc python-structlog-doc python-webob-doc python-pyparsing-doc "
        "python-fonttools-doc python-bottle-doc python-future-doc python-lark-doc "
        "python-discord-doc mypy-doc python-black-doc python-cffi-doc pypy3-doc",
    ),
    *_many(
        "rst",
        "Apache-2.0",
        "python-requests-doc python-cryptography-doc python-tornado-doc python-aiohttp-doc "
        "python-xarray-doc python-pymongo-doc cython-doc nova-doc neutron-doc cinder-doc "
        "keystone-doc glance-doc ironic-doc swift-doc heat-doc python-openstacksdk-doc "
        "python-selenium-doc python-taskflow-doc python-neutron-lib-doc octavia-doc manila-doc "
        "designate-doc barbican-doc ceilometer-doc aodh-doc",
    ),
    Source("llvm-14-doc", "rst", "Apache-2.0 WITH LLVM-exception"),
    Source("python-pil-doc", "rst", "HPND"),
    # Prose in HTML.
    Source("postgresql-doc-15", "html", "PostgreSQL"),
    Source("sqlite3-doc", "html", "public-domain"),
    Source("apache2-doc", "html", "Apache-2.0", ("/en/", ".html.en")),
    Source("rust-doc", "html", "MIT OR Apache-2.0", RUST_BOOKS),
    Source("nodejs-doc", "html", "MIT"),
    *_many(
        "html",
        "BSD-3-Clause",
        "python-django-doc python-scipy-doc python-scrapy-doc python-dipy-doc python-markdown-doc "
        "python-djangorestframework-doc",
    ),
    Source("docutils-doc", "html", "public-domain"),
    # Python modules.
    *_many(
        "code",
        "BSD-3-Clause",
        "python3-django python3-networkx python3-werkzeug python3-flask python3-jinja2 "
        "python3-celery python3-sphinx python3-ipython python3-numpy python3-scipy python3-pandas "
        "python3-matplotlib python3-sklearn python3-dask python3-scrapy python3-pygments "
        "python3-click python3-sympy python3-statsmodels python3-babel python3-markdown",
    ),
    *_many(
        "code",
        "MIT",
        "python3-sqlalchemy python3-twisted python3-setuptools python3-urllib3 python3-pytest "
        "python3-fonttools python3-rich python3-attr black python3-pip python3-trio "
        "python3-jsonschema python3-bottle python3-peewee",
    ),
    *_many(
        "code",
        "Apache-2.0",
        "python3-requests python3-tornado python3-nltk python3-xarray python3-nova "
        "python3-cryptography python3-aiohttp",
    ),
    Source("python3-docutils", "code", "public-domain"),
]

"""Tasks that wait for something for so many seconds, each through another library or in another way. Plain blocking code throughout.

Where the servers are stands in the environment: see `tests/test_legacy_drivers.py`.
"""

import asyncio
import contextlib
import ctypes
import ftplib
import hashlib
import http.client
import importlib.util
import io
import multiprocessing
import os
import poplib
import queue
import smtplib
import sqlite3
import subprocess
import threading
import time
import urllib.request
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from typing import Any

import gevent
import ldap3
import oracledb
import pg8000.dbapi
import psycopg
import psycopg2
import psycopg2.pool
import pymysql
import redis
import requests
import urllib3

MySQLdb: Any = importlib.import_module("MySQLdb") if importlib.util.find_spec("MySQLdb") else None  # wants to be compiled
SHARED: list[Any] = []
oracledb.enable_thin_mode()


def place(name: str) -> str:
    """Where that server is."""
    return os.environ[f"TEST_{name.upper()}"]


def port(name: str) -> int:
    """The port of that slow server."""
    return int(place(name))


def use_psycopg2(seconds: float) -> None:
    with closing(psycopg2.connect(host=place("postgres"), user="test", dbname="postgres")) as connection:
        connection.cursor().execute("SELECT pg_sleep(%s)", (seconds,))


def use_psycopg(seconds: float) -> None:
    with closing(psycopg.connect(host=place("postgres"), user="test", dbname="postgres")) as connection:
        connection.execute("SELECT pg_sleep(%s)", (seconds,))


def copies() -> None:
    """COPY, with psycopg2."""
    with closing(psycopg2.connect(host=place("postgres"), user="test", dbname="postgres")) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TEMPORARY TABLE kept (number integer)")
        cursor.copy_from(io.StringIO("1\n"), "kept")


def opens_a_large_object() -> None:
    """Of psycopg2."""
    with closing(psycopg2.connect(host=place("postgres"), user="test", dbname="postgres")) as connection:
        connection.lobject().close()


def empties_a_pool() -> None:
    """Wants two connections of a pool that has one."""
    pool = psycopg2.pool.ThreadedConnectionPool(1, 1, host=place("postgres"), user="test", dbname="postgres")
    with closing(pool.getconn()):
        pool.getconn()


def goes_on_after_an_interrupt() -> Any:
    """What a connection answers to the question for 2 that was interrupted by an exception at the question for 1."""
    sock = f"{place('postgres')}/.s.PGSQL.5432"
    with closing(pg8000.dbapi.connect("test", unix_sock=sock, database="postgres")) as connection:
        cursor = connection.cursor()
        with gevent.Timeout(0.2, False):
            cursor.execute("SELECT 1 FROM pg_sleep(0.5)")
        cursor.execute("SELECT 2")
        return cursor.fetchone()[0]


def shares_a_connection(seconds: float) -> None:
    """One for all tasks of this process."""
    if not SHARED:
        SHARED.append(pymysql.connect(unix_socket=place("mariadb"), user="root"))
    SHARED[0].cursor().execute("SELECT SLEEP(%s)", (seconds,))


def use_pg8000(seconds: float) -> None:
    sock = f"{place('postgres')}/.s.PGSQL.5432"
    with closing(pg8000.dbapi.connect("test", unix_sock=sock, database="postgres")) as connection:
        connection.cursor().execute("SELECT pg_sleep(%s)", (seconds,))


def use_pymysql(seconds: float) -> None:
    with closing(pymysql.connect(unix_socket=place("mariadb"), user="root")) as connection:
        connection.cursor().execute("SELECT SLEEP(%s)", (seconds,))


def use_mysqlclient(seconds: float) -> None:
    with closing(MySQLdb.connect(unix_socket=place("mariadb"), user="root")) as connection:
        connection.cursor().execute("SELECT SLEEP(%s)", (seconds,))


def use_redis(seconds: float) -> None:
    with redis.Redis(unix_socket_path=place("redis")) as client:
        assert client.blpop(["nothing comes here"], timeout=seconds) is None


def use_sqlite3(seconds: float) -> None:
    """Waits for a lock that somebody else holds."""
    with closing(sqlite3.connect(place("sqlite"), timeout=seconds)) as connection, contextlib.suppress(sqlite3.OperationalError):
        connection.execute("INSERT INTO kept VALUES (1)")


def use_oracledb(seconds: float) -> None:
    with contextlib.suppress(oracledb.OperationalError):  # the server hangs up
        oracledb.connect(user="a", password="b", dsn=f"127.0.0.1:{port('silent')}/x")


def use_requests(seconds: float) -> None:
    assert requests.get(f"http://127.0.0.1:{port('http')}/", timeout=30).text == "slow"


def use_urllib3(seconds: float) -> None:
    with urllib3.PoolManager() as manager:
        assert manager.request("GET", f"http://127.0.0.1:{port('http')}/").data == b"slow"


def use_urllib_request(seconds: float) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{port('http')}/", timeout=30) as answer:
        assert answer.read() == b"slow"


def use_http_client(seconds: float) -> None:
    with closing(http.client.HTTPConnection("127.0.0.1", port("http"), timeout=30)) as connection:
        connection.request("GET", "/")
        assert connection.getresponse().read() == b"slow"


def use_smtplib(seconds: float) -> None:
    smtplib.SMTP("127.0.0.1", port("smtp"), timeout=30).close()


def use_ftplib(seconds: float) -> None:
    with closing(ftplib.FTP()) as client:
        client.connect("127.0.0.1", port("ftp"), timeout=30)


def use_poplib(seconds: float) -> None:
    poplib.POP3("127.0.0.1", port("pop3"), timeout=30).close()


def use_ldap3(seconds: float) -> None:
    server = ldap3.Server(f"ldap://127.0.0.1:{port('ldap')}", get_info=ldap3.NONE)
    connection = ldap3.Connection(server, "cn=ann", "secret")
    assert connection.bind()
    connection.unbind()


def use_subprocess(seconds: float) -> None:
    subprocess.run(["sleep", str(seconds)], check=True)


def use_os_system(seconds: float) -> None:
    assert os.system(f"sleep {seconds}") == 0


def statuses_of_os_system(count: int) -> list[int]:
    """How so many programs ended that did nothing."""
    return [os.system("true") for _ in range(count)]


def use_time_sleep(seconds: float) -> None:
    time.sleep(seconds)


def use_threading(seconds: float) -> None:
    thread = threading.Thread(target=time.sleep, args=(seconds,))
    thread.start()
    thread.join()


def use_queue(seconds: float) -> None:
    with contextlib.suppress(queue.Empty):
        queue.Queue[int]().get(timeout=seconds)


def use_open(seconds: float) -> None:
    """Reads a file that lets it wait: a pipe with a name, into which somebody else writes later."""
    path = f"{place('pipes')}/{threading.get_ident()}-{time.monotonic_ns()}"
    os.mkfifo(path)
    os.system(f"(sleep {seconds}; echo written > {path}) &")  # subprocess would be waited for by gevent
    with open(path) as file:
        assert file.read() == "written\n"


def use_asyncio(seconds: float) -> None:
    asyncio.run(asyncio.sleep(seconds))


def use_multiprocessing(seconds: float) -> None:
    with multiprocessing.Pool(1) as pool:
        pool.map(time.sleep, [seconds])


def use_process_pool_executor(seconds: float) -> None:
    with ProcessPoolExecutor(1) as pool:
        list(pool.map(time.sleep, [seconds]))


def use_a_c_function_that_lets_go_of_the_gil(seconds: float) -> None:
    """A C function that waits, called as extensions call one that may take long: without the GIL."""
    _wait_in_c(ctypes.CDLL(None), seconds)


def use_a_c_function_that_holds_the_gil(seconds: float) -> None:
    """The same, called with the GIL held."""
    _wait_in_c(ctypes.PyDLL(None), seconds)


def _wait_in_c(library: Any, seconds: float) -> None:
    """Until the time is over, whatever signals come: as a library does that may be used where there are any."""
    left = Timespec(int(seconds), int(seconds % 1 * 1e9))
    while library.nanosleep(ctypes.byref(left), ctypes.byref(left)) != 0:
        pass


def time_in_c_that_minds_signals() -> float:
    """Seconds that a C function took which is to wait for a second, and is ended by any signal."""
    began = time.monotonic()
    ctypes.CDLL(None).usleep(1_000_000)
    return time.monotonic() - began


class Timespec(ctypes.Structure):
    """As in time.h."""

    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


def use_python_that_computes(seconds: float) -> None:
    """Computes, in Python."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        hashlib.sha256(b"small").hexdigest()

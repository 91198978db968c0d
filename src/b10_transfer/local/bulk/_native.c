/* Many small files in one call, without the interpreter's lock: the same as portable.py, whose docstrings say what.
 *
 * What Python owns is taken apart before the lock is released, and held, by the arguments or a tuple, until it is taken
 * again. Only the stable interface of Python 3.10 is used, so one build serves all later versions.
 */
#define Py_LIMITED_API 0x030A0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#ifdef __APPLE__
#define st_mtim st_mtimespec
#endif

/* A call that a signal has interrupted is made again, as Python does. */
#define RETRIED(call) ({ int result_; do result_ = (call); while (result_ < 0 && errno == EINTR); result_; })
#define NANOSECONDS 1000000000LL
#define FOLDER (O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
#define CREATED (O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC)
#define CONTINUED (O_WRONLY | O_NOFOLLOW | O_CLOEXEC)
/* Not to wait for whoever writes into a pipe that took a file's place. */
#define READ (O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC)

/* The folder of a tree that was used last, kept open: files mostly come folder by folder. */
struct folder {
    int tree;
    int makes;      /* whether folders that are missing are made, */
    mode_t mode;    /* and with which permissions, */
    mode_t masked;  /* less these */
    int descriptor; /* -1 if none is open */
    const char *path;
    size_t length;
};

static void leave(struct folder *folder)
{
    if (folder->descriptor >= 0)
        close(folder->descriptor);
    folder->descriptor = -1;
}

static int is_plain(const char *name)
{
    return *name && strcmp(name, ".") != 0 && strcmp(name, "..") != 0;
}

/* Make a folder that its owner can use, whatever the umask takes away. */
static int make(const struct folder *folder, int above, const char *name)
{
    if (mkdirat(above, name, folder->mode) != 0)
        return -1;
    return folder->masked & S_IRWXU ? fchmodat(above, name, (folder->mode & ~folder->masked) | S_IRWXU, 0) : 0;
}

/* Open the folder of a file. Name by name, so that no link leads elsewhere.
 * Returns the folder's descriptor, which stays this struct's, and where the file's own name begins; or -1. */
static int enter(struct folder *folder, const char *path, const char **name)
{
    const char *slash = strrchr(path, '/');
    size_t length = slash ? (size_t)(slash - path) : 0;

    *name = slash ? slash + 1 : path;
    if (!is_plain(*name)) {
        errno = EINVAL;
        return -1;
    }
    if (!slash) {
        errno = EBADF; /* in case it is none */
        return folder->tree;
    }
    if (folder->descriptor >= 0 && folder->length == length && memcmp(folder->path, path, length) == 0)
        return folder->descriptor;
    leave(folder);

    int descriptor = folder->tree;
    for (const char *start = path; start <= slash;) {
        char component[NAME_MAX + 1];
        const char *end = strchr(start, '/');
        size_t size = (size_t)(end - start);
        int next = -1;

        if (size > NAME_MAX) {
            errno = ENAMETOOLONG;
        } else {
            memcpy(component, start, size);
            component[size] = '\0';
            if (!is_plain(component))
                errno = EINVAL;
            else if (!folder->makes || make(folder, descriptor, component) == 0 || errno == EEXIST)
                next = RETRIED(openat(descriptor, component, FOLDER));
        }
        if (descriptor != folder->tree) {
            int failed = errno;
            close(descriptor);
            errno = failed;
        }
        if (next < 0)
            return -1;
        descriptor = next;
        start = end + 1;
    }
    folder->descriptor = descriptor;
    folder->path = path;
    folder->length = length;
    return descriptor;
}

struct part {
    const char *path;
    int mode;
    long long mtime_ns;
    PyObject *bytes;
    const char *content;
    Py_ssize_t first, last; /* in the content */
    long long at;           /* in the file */
};

static int write_part(struct folder *folder, const struct part *part, int masked)
{
    const char *name;
    int parent = enter(folder, part->path, &name);
    if (parent < 0)
        return -1;
    int descriptor = RETRIED(openat(parent, name, part->at ? CONTINUED : CREATED, part->mode));
    if (descriptor < 0)
        return -1;

    /* A part that continues a file could only if its owner may write it: the last one takes that away again. */
    int result = 0;
    if (part->at ? !(part->mode & S_IWUSR) : part->mode & masked)
        result = RETRIED(fchmod(descriptor, (mode_t)part->mode));
    const char *data = part->content + part->first;
    size_t left = (size_t)(part->last - part->first);
    off_t at = (off_t)part->at;
    while (result == 0 && left) {
        ssize_t count = pwrite(descriptor, data, left, at);
        if (count > 0) {
            data += count;
            at += count;
            left -= (size_t)count;
        } else if (count == 0) {
            errno = EIO;
            result = -1;
        } else if (errno != EINTR) {
            result = -1;
        }
    }
    if (result == 0) {
        long long seconds = part->mtime_ns / NANOSECONDS, nanoseconds = part->mtime_ns % NANOSECONDS;
        if (nanoseconds < 0) {
            seconds -= 1;
            nanoseconds += NANOSECONDS;
        }
        struct timespec time = {.tv_sec = (time_t)seconds, .tv_nsec = (long)nanoseconds};
        struct timespec times[2] = {time, time};
        result = futimens(descriptor, times);
    }
    int failed = errno;
    if (close(descriptor) != 0 && result == 0 && errno != EINTR)
        return -1;
    errno = failed;
    return result;
}

/* A time in nanoseconds. After 2262 it is more than a long long holds. */
static PyObject *nanoseconds_of(const struct timespec *time)
{
    long long seconds = time->tv_sec, most = 9000000000LL;
    if (-most < seconds && seconds < most)
        return PyLong_FromLongLong(seconds * NANOSECONDS + time->tv_nsec);
    PyObject *whole = PyLong_FromLongLong(seconds), *factor = PyLong_FromLongLong(NANOSECONDS);
    PyObject *rest = PyLong_FromLong(time->tv_nsec);
    PyObject *product = whole && factor ? PyNumber_Multiply(whole, factor) : NULL;
    PyObject *sum = product && rest ? PyNumber_Add(product, rest) : NULL;
    Py_XDECREF(whole);
    Py_XDECREF(factor);
    Py_XDECREF(rest);
    Py_XDECREF(product);
    return sum;
}

/* The first of some bytes that stay where they are while `held` is held; NULL with an exception set. */
static const char *first_byte(PyObject *bytes, PyObject *held)
{
    if (PyBytes_Check(bytes))
        return PyBytes_AsString(bytes);
    if (!PyByteArray_Check(bytes)) {
        PyErr_SetString(PyExc_TypeError, "a file's content must be bytes or a bytearray");
        return NULL;
    }
    /* A view of it keeps the array from being resized. */
    PyObject *view = PyMemoryView_FromObject(bytes);
    int failed = !view || PyList_Append(held, view) < 0;
    Py_XDECREF(view);
    return failed ? NULL : PyByteArray_AsString(bytes);
}

/* A tuple of a sequence's items, and zeroed memory for a struct for each; NULL with an exception set. */
static PyObject *gather(PyObject *sequence, size_t size, void **structs, Py_ssize_t *count)
{
    PyObject *items = PySequence_Tuple(sequence);
    if (!items)
        return NULL;
    *count = PyTuple_Size(items);
    *structs = PyMem_Calloc((size_t)*count + 1, size);
    if (!*structs) {
        Py_DECREF(items);
        return PyErr_NoMemory();
    }
    return items;
}

/* Item `number`, which must be a tuple: it and the text in it stay as they are while its owner is held. */
static PyObject *row(PyObject *items, Py_ssize_t number)
{
    PyObject *item = PyTuple_GetItem(items, number);
    if (item && !PyTuple_Check(item)) {
        PyErr_SetString(PyExc_TypeError, "each file must be a tuple");
        return NULL;
    }
    return item;
}

static PyObject *fail(int error, PyObject *item)
{
    errno = error;
    return PyErr_SetFromErrnoWithFilenameObject(PyExc_OSError, PyTuple_GetItem(item, 0));
}

static PyObject *write_files(PyObject *module, PyObject *arguments)
{
    (void)module;
    int tree, masked, folder_mode = 0755;
    Py_ssize_t count;
    PyObject *files;
    void *memory;
    if (!PyArg_ParseTuple(arguments, "iOi|i", &tree, &files, &masked, &folder_mode))
        return NULL;
    PyObject *held = PyList_New(0);
    PyObject *items = held ? gather(files, sizeof(struct part), &memory, &count) : NULL;
    if (!items) {
        Py_XDECREF(held);
        return NULL;
    }

    struct part *parts = memory;
    Py_ssize_t done = 0;
    int error = 0;
    for (; done < count; done++) {
        struct part *part = &parts[done];
        PyObject *item = row(items, done);
        if (!item || !PyArg_ParseTuple(item, "siLOnnL", &part->path, &part->mode, &part->mtime_ns, &part->bytes,
                                       &part->first, &part->last, &part->at))
            goto end;
        if (done && part->bytes == parts[done - 1].bytes)
            part->content = parts[done - 1].content;
        else if (!(part->content = first_byte(part->bytes, held)))
            goto end;
        Py_ssize_t size = PyObject_Size(part->bytes);
        if (part->first < 0 || part->last < part->first || part->last > size || part->at < 0) {
            PyErr_SetString(PyExc_ValueError, "a file's content does not lie in its bytes");
            goto end;
        }
    }

    Py_BEGIN_ALLOW_THREADS;
    struct folder folder = {
        .tree = tree, .makes = 1, .mode = (mode_t)folder_mode, .masked = (mode_t)masked, .descriptor = -1};
    for (done = 0; done < count; done++)
        if (write_part(&folder, &parts[done], masked) != 0) {
            error = errno;
            break;
        }
    leave(&folder);
    Py_END_ALLOW_THREADS;
    if (error)
        fail(error, PyTuple_GetItem(items, done));

end:
    PyMem_Free(memory);
    Py_DECREF(items);
    Py_DECREF(held);
    if (PyErr_Occurred())
        return NULL;
    Py_RETURN_NONE;
}

struct found {
    const char *path;
    Py_ssize_t size, offset; /* what to read, and where to in the memory */
    Py_ssize_t read;
    struct stat status;
};

static int read_file(struct folder *folder, char *memory, struct found *found)
{
    const char *name;
    int parent = enter(folder, found->path, &name);
    if (parent < 0)
        return -1;
    int descriptor = RETRIED(openat(parent, name, READ));
    if (descriptor < 0)
        return -1;
    int result = 0;
    while (found->read < found->size) {
        ssize_t count = read(descriptor, memory + found->offset + found->read, (size_t)(found->size - found->read));
        if (count > 0) {
            found->read += count;
        } else if (count == 0) {
            break;
        } else if (errno != EINTR) {
            result = -1;
            break;
        }
    }
    if (result == 0)
        result = fstat(descriptor, &found->status);
    int failed = errno;
    close(descriptor);
    errno = failed;
    return result;
}

static PyObject *read_files(PyObject *module, PyObject *arguments)
{
    (void)module;
    int tree;
    PyObject *files, *target, *result = NULL;
    Py_ssize_t count;
    void *memory;
    if (!PyArg_ParseTuple(arguments, "iOO!", &tree, &files, &PyByteArray_Type, &target))
        return NULL;
    PyObject *items = gather(files, sizeof(struct found), &memory, &count);
    if (!items)
        return NULL;
    /* A view of it keeps the array from being resized while the lock is released. */
    PyObject *view = PyMemoryView_FromObject(target);
    struct found *all = memory;
    char *buffer = PyByteArray_AsString(target);
    Py_ssize_t size = PyByteArray_Size(target), done = 0;
    int error = 0;
    if (!view)
        goto end;
    for (; done < count; done++) {
        struct found *found = &all[done];
        PyObject *item = row(items, done);
        if (!item || !PyArg_ParseTuple(item, "snn", &found->path, &found->size, &found->offset))
            goto end;
        if (found->size < 0 || found->offset < 0 || found->offset > size - found->size) {
            PyErr_SetString(PyExc_ValueError, "a file does not fit into the memory");
            goto end;
        }
    }

    Py_BEGIN_ALLOW_THREADS;
    struct folder folder = {.tree = tree, .makes = 0, .descriptor = -1};
    for (done = 0; done < count; done++)
        if (read_file(&folder, buffer, &all[done]) != 0) {
            error = errno;
            break;
        }
    leave(&folder);
    Py_END_ALLOW_THREADS;
    if (error) {
        fail(error, PyTuple_GetItem(items, done));
        goto end;
    }

    result = PyList_New(count);
    for (done = 0; result && done < count; done++) {
        struct stat *status = &all[done].status;
        PyObject *told = Py_BuildValue("nLNK", all[done].read, (long long)status->st_size,
                                       nanoseconds_of(&status->st_mtim), (unsigned long long)status->st_ino);
        if (!told || PyList_SetItem(result, done, told) < 0)
            Py_CLEAR(result);
    }

end:
    Py_XDECREF(view);
    PyMem_Free(memory);
    Py_DECREF(items);
    return result;
}

static PyMethodDef methods[] = {
    {"write_files", write_files, METH_VARARGS, NULL},
    {"read_files", read_files, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_native", NULL, 0, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__native(void)
{
    return PyModuleDef_Init(&definition);
}

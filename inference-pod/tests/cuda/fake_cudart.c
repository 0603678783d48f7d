// Stands in for CUDA's runtime: one device, whose memory is the host's. A fake: nothing is copied before somebody waits for
// it, and what is wrong is counted.

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { OK = 0, INVALID = 1, OUT_OF_MEMORY = 2, MOST = 1 << 16 };

struct entry { void *to; const void *from; size_t bytes; };
struct event { size_t mark; };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct entry queue[MOST]; // of the one stream beside the default one
static size_t asked, done;
static int the_stream, streams, fences, waits, pinned_now, last_error, wrong;
static int devices = 1, fail_copies_after = -1;
static size_t copied_bytes, pinned_bytes;
static _Thread_local int chosen = -1;
static struct event *fence; // what the default stream is at

static int fail(int code) { return last_error = code; }

static void copy_until(size_t mark) {
  for (; done < mark; done++) {
    memcpy(queue[done].to, queue[done].from, queue[done].bytes);
    copied_bytes += queue[done].bytes;
  }
}

int cudaGetLastError(void) {
  int error = last_error;
  last_error = OK;
  return error;
}

const char *cudaGetErrorString(int code) { return code == OUT_OF_MEMORY ? "out of memory" : "invalid argument"; }

int cudaGetDeviceCount(int *count) {
  *count = devices;
  return devices > 0 ? OK : fail(100);
}

int cudaSetDevice(int device) {
  chosen = device;
  return device < devices ? OK : fail(101);
}

int cudaStreamCreateWithFlags(void **stream, unsigned flags) {
  wrong += flags != 1 || chosen != 0;
  streams++;
  *stream = &the_stream;
  return OK;
}

int cudaEventCreateWithFlags(void **event, unsigned flags) {
  wrong += flags != 3 || chosen != 0;
  *event = calloc(1, sizeof(struct event));
  return OK;
}

int cudaEventRecord(void *event, void *stream) {
  pthread_mutex_lock(&lock);
  if (stream == NULL) {
    fence = event;
  } else {
    wrong += stream != &the_stream;
    ((struct event *)event)->mark = asked;
  }
  pthread_mutex_unlock(&lock);
  return OK;
}

int cudaStreamWaitEvent(void *stream, void *event, unsigned flags) {
  pthread_mutex_lock(&lock);
  (void)event; // another thread may have recorded one of its own since
  wrong += stream != &the_stream || flags != 0 || fence == NULL;
  fences++;
  pthread_mutex_unlock(&lock);
  return OK;
}

int cudaEventSynchronize(void *event) {
  pthread_mutex_lock(&lock);
  waits++;
  copy_until(((struct event *)event)->mark);
  pthread_mutex_unlock(&lock);
  return OK;
}

int cudaEventDestroy(void *event) {
  free(event);
  return OK;
}

int cudaMemcpyAsync(void *to, const void *from, size_t bytes, int kind, void *stream) {
  pthread_mutex_lock(&lock);
  wrong += stream != &the_stream || (kind != 1 && kind != 2) || fences == 0 || asked == MOST;
  int code = OK;
  if (fail_copies_after == 0) {
    code = fail(INVALID);
  } else {
    fail_copies_after -= fail_copies_after > 0;
    queue[asked++] = (struct entry){to, from, bytes};
  }
  pthread_mutex_unlock(&lock);
  return code;
}

// The size is kept before the memory, on 64 bytes.
int cudaHostAlloc(void **memory, size_t bytes, unsigned flags) {
  wrong += flags != 0 || chosen != 0;
  if (bytes > (size_t)1 << 40) {
    return fail(OUT_OF_MEMORY);
  }
  char *start = aligned_alloc(64, (bytes + 127) / 64 * 64);
  *(size_t *)start = bytes;
  *memory = start + 64;
  pthread_mutex_lock(&lock);
  pinned_now++;
  pinned_bytes += bytes;
  pthread_mutex_unlock(&lock);
  return OK;
}

int cudaFreeHost(void *memory) {
  char *start = memory, *end = start + *(size_t *)(start - 64);
  pthread_mutex_lock(&lock);
  for (size_t at = done; at < asked; at++) {
    char *to = queue[at].to;
    const char *from = queue[at].from;
    wrong += (to >= start && to < end) || (from >= start && from < end);
  }
  pinned_now--;
  pthread_mutex_unlock(&lock);
  free(start - 64);
  return OK;
}

// What tests ask and set.
size_t fake_wrong(void) { return (size_t)wrong; }
size_t fake_streams(void) { return (size_t)streams; }
size_t fake_fences(void) { return (size_t)fences; }
size_t fake_waits(void) { return (size_t)waits; }
size_t fake_copies(void) { return asked; }
size_t fake_copied_bytes(void) { return copied_bytes; }
size_t fake_pinned_now(void) { return (size_t)pinned_now; }
size_t fake_pinned_bytes(void) { return pinned_bytes; }
size_t fake_last_error(void) { return (size_t)last_error; }
void fake_devices(size_t count) { devices = (int)count; }
void fake_fail_copies_after(size_t count) { fail_copies_after = (int)count; }

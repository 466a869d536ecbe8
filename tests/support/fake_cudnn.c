/* SPDX-License-Identifier: Apache-2.0 */
/* A libcudnn that can be loaded anywhere and only knows its version: FAKE_CUDNN_VERSION, by default an old one. */
#include <stddef.h>
#include <stdlib.h>

size_t cudnnGetVersion(void);
size_t cudnnGetVersion(void) {
  const char* text = getenv("FAKE_CUDNN_VERSION");
  return text == NULL ? 90100 : (size_t)strtoul(text, NULL, 10);
}

/* Never called: a version that is refused is asked nothing else. */
#define STUB(name) \
  int name(void);  \
  int name(void) { return 1; }
STUB(cudnnGetErrorString)
STUB(cudnnGetLastErrorString)
STUB(cudnnCreate)
STUB(cudnnDestroy)
STUB(cudnnSetStream)
STUB(cudnnGetStream)
STUB(cudnnBackendCreateDescriptor)
STUB(cudnnBackendDestroyDescriptor)
STUB(cudnnBackendFinalize)
STUB(cudnnBackendSetAttribute)
STUB(cudnnBackendGetAttribute)
#ifndef FAKE_CUDNN_WITHOUT_EXECUTE
STUB(cudnnBackendExecute)
#endif

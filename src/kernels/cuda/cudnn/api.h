// SPDX-License-Identifier: Apache-2.0
// cuDNN's functions without linking to cuDNN: each call below goes to a table that library.cpp fills by dlopen.
//
// The names are changed before NVIDIA's header declares them, so that the same program may link to cuDNN itself, and so
// that cudnn_frontend, which calls them by these names, needs no loader of its own (its own also loads a second CUDA
// runtime). Include this before any header of cuDNN.
#pragma once

#define cudnnGetVersion attnmux_cudnnGetVersion
#define cudnnGetErrorString attnmux_cudnnGetErrorString
#define cudnnGetLastErrorString attnmux_cudnnGetLastErrorString
#define cudnnCreate attnmux_cudnnCreate
#define cudnnDestroy attnmux_cudnnDestroy
#define cudnnSetStream attnmux_cudnnSetStream
#define cudnnGetStream attnmux_cudnnGetStream
#define cudnnBackendCreateDescriptor attnmux_cudnnBackendCreateDescriptor
#define cudnnBackendDestroyDescriptor attnmux_cudnnBackendDestroyDescriptor
#define cudnnBackendFinalize attnmux_cudnnBackendFinalize
#define cudnnBackendSetAttribute attnmux_cudnnBackendSetAttribute
#define cudnnBackendGetAttribute attnmux_cudnnBackendGetAttribute
#define cudnnBackendExecute attnmux_cudnnBackendExecute

#include <cudnn.h>

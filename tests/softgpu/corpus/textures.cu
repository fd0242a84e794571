// Texture and surface objects.
template <class T>
__device__ void fetches(T* out, cudaTextureObject_t t, float x, float y, float z) {
  int n = 0;
  out[n++] = tex1Dfetch<T>(t, 3), out[n++] = tex1D<T>(t, x), out[n++] = tex2D<T>(t, x, y),
  out[n++] = tex3D<T>(t, x, y, z);
  out[n++] = tex1DLayered<T>(t, x, 1), out[n++] = tex2DLayered<T>(t, x, y, 1), out[n++] = texCubemap<T>(t, x, y, z);
  out[n++] = texCubemapLayered<T>(t, x, y, z, 1), out[n++] = tex2DLod<T>(t, x, y, 1.0f),
  out[n++] = tex3DLod<T>(t, x, y, z, 1.0f);
  out[n++] = tex1DLod<T>(t, x, 1.0f), out[n++] = tex1DGrad<T>(t, x, 0.5f, 0.5f);
  out[n++] = tex2DGrad<T>(t, x, y, float2{1, 2}, float2{3, 4});
  out[n++] = tex3DGrad<T>(t, x, y, z, float4{1, 2}, float4{3, 4}), out[n++] = texCubemapLod<T>(t, x, y, z, 0.5f);
  bool resident = false;
  out[n++] = tex2D<T>(t, x, y, &resident);
}
__global__ void textures(float4* f, int2* i, unsigned char* c, uint4* u, cudaTextureObject_t t, float x, float y,
                         float z) {
  fetches(f, t, x, y, z), fetches(i, t, x, y, z), fetches(c, t, x, y, z);
  u[0] = tex2Dgather<uint4>(t, x, y, 0), f[20] = tex2Dgather<float4>(t, x, y, 3);
}
template <class T>
__device__ void accesses(T* out, cudaSurfaceObject_t s, int x, int y, int z) {
  surf1Dread(out, s, x), surf2Dread(out + 1, s, x, y, cudaBoundaryModeClamp),
      surf3Dread(out + 2, s, x, y, z, cudaBoundaryModeZero);
  surf1DLayeredread(out + 3, s, x, 1), surf2DLayeredread(out + 4, s, x, y, 1), surfCubemapread(out + 5, s, x, y, 2);
  surf1Dwrite(out[0], s, x), surf2Dwrite(out[1], s, x, y), surf3Dwrite(out[2], s, x, y, z, cudaBoundaryModeZero);
  surf1DLayeredwrite(out[3], s, x, 1), surf2DLayeredwrite(out[4], s, x, y, 1), surfCubemapwrite(out[5], s, x, y, 2);
}
__global__ void surfaces(float4* f, short2* i, unsigned char* c, cudaSurfaceObject_t s, int x, int y, int z) {
  accesses(f, s, x, y, z), accesses(i, s, x, y, z), accesses(c, s, x, y, z);
}

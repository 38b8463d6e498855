"""Opening, preparing, distorting and saving images and clips: everything that touches Pillow or PyAV."""

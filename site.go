package skyport

// Site is one place where nodes can be had.
type Site struct {
	ID        string `json:"id" doc:"UUID of the site, stable over restarts" format:"uuid"`
	Name      string `json:"name" doc:"Name that jobs ask for"`
	Kind      string `json:"kind" doc:"Kind of the provider, such as local or azure"`
	Server    string `json:"server,omitempty" doc:"Host of the site's own API, for people"`
	Port      int    `json:"port,omitempty" doc:"Port of the site's own API"`
	Local     bool   `json:"local" doc:"Its nodes are this machine: job and user share one network"`
	Container bool   `json:"container" doc:"Its nodes have a container engine"`
	// DefaultFlavor and DefaultImage are names.
	DefaultFlavor string `json:"default_flavor,omitempty" doc:"Name of the flavor that terminals offer first"`
	DefaultImage  string `json:"default_image,omitempty" doc:"Name of the cloud image that nodes boot when a job names none"`
	Limits        Limits `json:"limits" doc:"How much may be had at once"`
	Region        string `json:"region,omitempty" doc:"Where it is, in the cloud's own spelling"`
	Currency      string `json:"currency,omitempty" doc:"Currency of its prices, such as USD; empty: not said"`

	Registries []string `json:"registries,omitempty" doc:"Hosts of container registries that the site's own login opens for jobs"`
	Storages   []string `json:"storages,omitempty" doc:"Names of the storages that jobs at the site can mount"`
}

// Limits bound what may exist at a site at one time. Zero means no limit.
type Limits struct {
	Nodes  int   `json:"nodes,omitempty" doc:"Most nodes at once"`
	CPUs   int   `json:"cpus,omitempty" doc:"Most CPUs at once"`
	Memory Bytes `json:"memory,omitempty" doc:"Most memory at once, in bytes"`
}

// Flavor is a kind of node at a site.
type Flavor struct {
	ID      string  `json:"id" format:"uuid" doc:"UUID of the flavor, stable over restarts"`
	Name    string  `json:"name" doc:"Name that jobs ask for"`
	Site    string  `json:"site" doc:"Name of its site"`
	CPUs    int     `json:"cpus" doc:"CPUs of a node"`
	Memory  Bytes   `json:"memory" doc:"Memory of a node in bytes"`
	GPUs    int     `json:"gpus" doc:"GPUs of a node"`
	Storage Bytes   `json:"storage" doc:"Local storage of a node in bytes"`
	Price   float64 `json:"price" doc:"Price per node and hour"`
	Arch    string  `json:"arch,omitempty" doc:"CPU architecture in Go's spelling: amd64, arm64"`

	GPUModel  string  `json:"gpu_model,omitempty" doc:"What its GPUs are, such as A100"`
	SpotPrice float64 `json:"spot_price,omitempty" doc:"Price per node and hour as spot, when it was asked for; 0: not to be had as spot"`
	Unpriced  bool    `json:"unpriced,omitempty" doc:"The site does not tell its price: 0 does not mean free"`
}

// ImageKind says what an image is for.
type ImageKind string

const (
	ImageCloud     ImageKind = "cloud"     // a node boots it
	ImageContainer ImageKind = "container" // a job runs in it
)

// Image is what a node boots or what a job runs in.
type Image struct {
	ID      string    `json:"id" format:"uuid" doc:"UUID of the image, stable over restarts"`
	Name    string    `json:"name" doc:"Name that jobs ask for"`
	Site    string    `json:"site" doc:"Name of its site"`
	Kind    ImageKind `json:"kind" enum:"cloud,container"`
	Comment string    `json:"comment" doc:"For people"`
	Arch    string    `json:"arch,omitempty" doc:"CPU architecture in Go's spelling; empty: any"`
}

// Account is who pays: the users who may spend and the sites where.
type Account struct {
	ID    string   `json:"id" format:"uuid"`
	Name  string   `json:"name"`
	Users []string `json:"users" doc:"Ids or names of its users; * means every user with a certificate"`
	Sites []string `json:"sites" doc:"Names of its sites; * means every site"`

	Budget *Budget `json:"budget,omitempty" doc:"What it may spend; absent: as much as it likes"`
}
